<?php
// Another vulnerable page: it prints any file, if the server's user may read it.
header('Content-Type: text/plain');
$text = @file_get_contents($_GET['file']);
echo $text === false ? "refused\n" : $text;
