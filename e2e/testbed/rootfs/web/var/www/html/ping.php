<?php
// The vulnerable page: what a visitor asks for goes to a shell.
header('Content-Type: text/plain');
echo shell_exec('ping -c 1 -W 1 ' . $_GET['ip'] . ' 2>&1');
