#!/bin/sh
# test.sh EXPECTATION LSM: what every guest runs. EXPECTATION is that of kernels.list; LSM is
# bpf or none: whether this boot has bpf among its security modules.
set -u
expectation=$1
lsm=$2
operations=5000
# Of some 7,300 events, where the kernel preempts programs: emulated, they are fifty times slower
# by the clock, and preempted as often.
lost_max=725
failures=0

check() {
    description=$1
    shift
    if "$@"; then
        echo "ok      $description"
    else
        echo "FAILED  $description"
        failures=$((failures + 1))
    fi
}

has_wanted_lsm() {
    if grep -q '\bbpf\b' /sys/kernel/security/lsm; then
        [ "$lsm" = bpf ]
    else
        [ "$lsm" = none ]
    fi
}

# row TABLE TARGET REST: the summary has this row of busybox (columns as in the CSV).
row() {
    grep -qF ",$1,/bin/busybox,$2,$3" /tmp/smoke.csv
}

has_smoke_rows() {
    check 'a program was run' row process /bin/busybox ,,,,,,,,,Allow,
    check 'a file was read' row file /etc/hosts ,,,,,,,read,,Allow,1,
    check 'a file was made' row file /data/made ',,,,,,,"read,write,create",,Allow,1,'
    check 'a file was removed' row file /data/made ,,,,,,,delete,as-requested,Allow,1,
    check 'a read was refused' row file /vm/refused ,,,,,,,read,as-requested,Deny,1,
    check 'a connection went out' row egress 127.0.0.1 TCP,4000,,,,,,,,Allow,1,
    check 'a connection came in' row ingress 127.0.0.1 TCPv6,4000,,,,,,,,Allow,1,
    check 'a port was bound' row bind :: TCPv6,4000,,,,,,,,Allow,1,
    check 'a port was listened on' row bind :: TCPv6,4000,,,,,,listen,,Allow,1,
}

# What may differ from the truth.
tolerance() {
    [ "$expectation" != preempts ] || echo "--allow-reported-loss --lost-max $lost_max"
}

# records_truth HOOKS
records_truth() {
    ethogram record -q --hooks "$1" -o "/data/$1.db" --fold none \
        --rows-per-container-max 1000000 -- \
        actor --seed 1 --ops $operations --dir "/data/$1" --truth /data/truth.jsonl &&
        ethogram summary --db "/data/$1.db" -o json --fold none \
            --status allow,deny,audit,failed >/tmp/truth.json &&
        truth-compare --truth /data/truth.jsonl --summary /tmp/truth.json $(tolerance)
}

# covers HOOKS: every way of doing things is seen, or hidden by a blind spot that doctor lists.
# Each set of hooks has files of its own, so that none passes by what another one left.
covers() {
    truth=/data/coverage-$1.json
    summary=/data/coverage-$1-summary.json
    doctor=/data/coverage-$1-doctor.json
    ethogram record -q --hooks "$1" -o "/data/coverage-$1.db" --fold none \
        --rows-per-container-max 1000000 -- \
        matrix run --machine-wide --dir "/data/coverage-$1" --truth "$truth" &&
        ethogram summary --db "/data/coverage-$1.db" -o json --fold none \
            --status allow,deny,audit,failed >"$summary" &&
        ethogram doctor --hooks "$1" -o json >"$doctor"
    matrix check --hooks "$1" --truth "$truth" --summary "$summary" --doctor "$doctor"
}

# refuses_clearly: says which kernel is too old for what, instead of a bare error number.
refuses_clearly() {
    ! ethogram record -q -o /tmp/refused.db -- true 2>/tmp/refused &&
        cat /tmp/refused && grep -qi kernel /tmp/refused && grep -q "$(uname -r)" /tmp/refused
}

# names_addresses HOOKS: every address has the names that the workload says, and no other.
names_addresses() {
    ethogram record -q --hooks "$1" -o "/data/names-$1.db" -- resolver >/tmp/names.truth &&
        ethogram summary --db "/data/names-$1.db" -o csv --fold none -t egress >/tmp/names.csv &&
        while read -r address names; do
            [ "$names" = "${names#*,}" ] || continue # two names: their order is the tests' business
            grep -qF ",$address,UDP,9,,,,,$names,," /tmp/names.csv || {
                echo "no row for $address with the name '$names'"
                cat /tmp/names.csv
                return 1
            }
        done </tmp/names.truth
}

uname -a
echo "security modules: $(cat /sys/kernel/security/lsm)"
check 'the boot has the security modules asked for' has_wanted_lsm

if [ "$expectation" = too-old ]; then
    check 'the kernel is refused with a reason' refuses_clearly
    exit $failures
fi

if ethogram help doctor >/dev/null 2>&1; then
    check 'ethogram doctor' ethogram doctor
fi
echo secret >/vm/refused
chmod 600 /vm/refused
check 'record' ethogram record -q -o /tmp/smoke.db -- /vm/smoke.sh
check 'summary' sh -c 'ethogram summary --db /tmp/smoke.db -o csv --fold none >/tmp/smoke.csv'
before=$failures
has_smoke_rows
if [ $failures != $before ]; then
    cat /tmp/smoke.csv
fi
for hooks in tracepoint trampoline; do
    check "the summary of $operations operations by $hooks hooks equals their truth" \
        records_truth $hooks
    # Of what is done once, no loss can be allowed for.
    [ "$expectation" = preempts ] && continue
    check "every way is seen by $hooks hooks, or a stated blind spot" covers $hooks
    check "addresses have the names that were asked for by $hooks hooks" names_addresses $hooks
done
exit $failures
