<?php
// What the application is for: it counts the visit in the session and asks the database.
session_save_path('/tmp');
session_start();
$_SESSION['visits'] = ($_SESSION['visits'] ?? 0) + 1;
$db = new mysqli(getenv('DB_HOST'), 'dvwa', 'dvwa', 'dvwa', 3306);
foreach ($db->query('SELECT id, name FROM users') as $user) {
    echo "$user[id] $user[name]\n";
}
