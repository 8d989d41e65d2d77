#!/bin/bash
# Makes a Helm chart of what kubectl builds of deploy/kubernetes, so that nothing is written twice,
# and holds what helm makes of the chart against it.
# usage: chart.sh FOLDER
set -euo pipefail
folder=$(realpath "${1:?usage: chart.sh FOLDER}")
cd "$(dirname "$0")/.."

fail() { echo "chart: $*" >&2; exit 1; }

for program in kubectl helm; do
	command -v $program > /dev/null || fail "$program is missing: tools/packages.sh test installs it"
done
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
chart=$work/ethogram
mkdir -p "$chart/templates"
sed "s/^\(version\|appVersion\): .*/\1: $version/" deploy/helm/Chart.yaml > "$chart/Chart.yaml"
cp deploy/helm/values.yaml "$chart/"

# What a kustomization makes. Helm makes the namespace itself, if it is asked to.
objects() {
	kubectl kustomize "$1" | awk 'BEGIN { RS = "---\n"; ORS = "" }
		!/(^|\n)kind: Namespace\n/ { print separator $0; separator = "---\n" }'
}

# Puts a value in the place of a text, which must be there.
put() {
	grep -qF -- "$2" "$1" || fail "there is no \"$2\" any more: mend $0"
	local from to
	from=$(printf '%s' "$2" | sed 's/[]\/$*.^[]/\\&/g')
	to=$(printf '%s' "$3" | sed 's/[\/&]/\\&/g')
	sed -i "s/$from/$to/g" "$1"
}

template() {
	local file=$chart/templates/$1.yaml
	{ echo "{{- if eq .Values.store \"$1\" }}"; objects "$2"; echo '{{- end }}'; } > "$file"
	put "$file" "image: ethogram:$version" 'image: {{ .Values.image | quote }}'
	put "$file" 'cluster: ""' 'cluster: {{ .Values.cluster | quote }}'
	put "$file" 'namespace: ethogram' 'namespace: {{ .Release.Namespace }}'
	put "$file" 'ethogram-collector.ethogram.svc' 'ethogram-collector.{{ .Release.Namespace }}.svc'
	put "$file" '/run/containerd/containerd.sock' '{{ .Values.runtime.socket }}'
	put "$file" 'path: /run/containerd' 'path: {{ .Values.runtime.folder }}'
	put "$file" 'mountPath: /run/containerd' 'mountPath: {{ .Values.runtime.folder }}'
}

# The same objects in the same form and order, whoever wrote them.
normal() {
	local folder
	folder=$(mktemp -d -p "$work")
	cat > "$folder/objects.yaml"
	echo 'resources: [objects.yaml]' > "$folder/kustomization.yaml"
	kubectl kustomize "$folder"
}

template sqlite deploy/kubernetes/base
put "$chart/templates/sqlite.yaml" 'storage: 20Gi' 'storage: {{ .Values.storage }}'
template clickhouse deploy/kubernetes/overlays/clickhouse

helm lint --quiet "$chart"
for store in sqlite:base clickhouse:overlays/clickhouse; do
	objects "deploy/kubernetes/${store#*:}" | normal > "$work/wanted"
	helm template ethogram "$chart" --namespace ethogram --set "store=${store%%:*}" | normal > "$work/made"
	diff "$work/wanted" "$work/made" || fail "helm makes something else of it than kubectl"
done
helm package "$chart" --destination "$folder" > /dev/null
echo "chart: $folder/ethogram-$version.tgz"
