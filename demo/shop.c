/*
 * The demo's application: a small shop. One program in three roles, told apart by the name
 * it is started under, so that each has an executable of its own:
 *
 *   db        keeps prices and sales; listens on the unix socket db.sock
 *   web       listens on TCP, gives up root, asks db, runs a shell for /stats
 *   customer  makes a handful of requests
 *
 * Errors end the program with a message: what a demo shows must have happened.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define AUDIT_PORT 8514 /* nobody listens there; a datagram does not mind */
#define NOBODY 65534
#define LINE_BYTES_MAX 256

static int port(void)
{
	const char *text = getenv("SHOP_PORT");

	return text ? atoi(text) : 8480;
}

static int checked(int result, const char *what)
{
	if (result < 0)
		err(1, "%s", what);
	return result;
}

/* Goes on in the background, as a daemon does once it can be reached. */
static void become_daemon(const char *pid_file)
{
	pid_t child = checked(fork(), "fork");
	FILE *file;

	if (child == 0)
		return;
	file = fopen(pid_file, "w");
	if (!file || fprintf(file, "%d\n", child) < 0 || fclose(file))
		err(1, "%s", pid_file);
	exit(0);
}

static struct sockaddr_un db_address(void)
{
	return (struct sockaddr_un){ .sun_family = AF_UNIX, .sun_path = "/opt/ethogram-demo/db.sock" };
}

static struct sockaddr_in local_address(int port)
{
	return (struct sockaddr_in){ .sin_family = AF_INET,
				     .sin_port = htons(port),
				     .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
}

/* Reads one line from a socket; empty if there is none. */
static void read_line(int fd, char line[LINE_BYTES_MAX])
{
	ssize_t bytes = checked(read(fd, line, LINE_BYTES_MAX - 1), "read");

	line[bytes] = 0;
	line[strcspn(line, "\r\n")] = 0;
}

static void write_text(int fd, const char *text)
{
	if (write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		err(1, "write");
}

/* ---- db ---- */
static void append(const char *path, const char *text)
{
	int fd = checked(open(path, O_WRONLY | O_CREAT | O_APPEND, 0644), path);

	write_text(fd, text);
	close(fd);
}

/* Looks a price up, then replaces the list of sales by a longer one. */
static void sell(int client)
{
	char line[LINE_BYTES_MAX];
	int prices = checked(open("data/prices.csv", O_RDONLY), "data/prices.csv");

	read_line(prices, line);
	close(prices);
	append("data/sales.new", line);
	checked(rename("data/sales.new", "data/sales.csv"), "rename");
	write_text(client, line);
}

static _Noreturn void db(void)
{
	struct sockaddr_un address = db_address();
	int listener = checked(socket(AF_UNIX, SOCK_STREAM, 0), "socket");

	checked(bind(listener, (void *)&address, sizeof(address)), "bind db.sock");
	checked(chmod(address.sun_path, 0666), "chmod db.sock");
	checked(listen(listener, 8), "listen");
	become_daemon("db.pid");
	for (;;) {
		int client = checked(accept(listener, NULL, NULL), "accept");

		sell(client);
		close(client);
	}
}

/* ---- web ---- */
static void ask_db(char line[LINE_BYTES_MAX])
{
	struct sockaddr_un address = db_address();
	int fd = checked(socket(AF_UNIX, SOCK_STREAM, 0), "socket");

	checked(connect(fd, (void *)&address, sizeof(address)), "connect db.sock");
	read_line(fd, line);
	close(fd);
}

static void count_requests(char line[LINE_BYTES_MAX])
{
	FILE *command = popen("wc -l < log/access.log", "r");

	if (!command || !fgets(line, LINE_BYTES_MAX, command) || pclose(command))
		err(1, "wc");
}

static void tell_audit(const char *what)
{
	struct sockaddr_in address = local_address(AUDIT_PORT);
	int fd = checked(socket(AF_INET, SOCK_DGRAM, 0), "socket");

	checked(sendto(fd, what, strlen(what), 0, (void *)&address, sizeof(address)), "sendto");
	close(fd);
}

static void answer(int client, const char *request)
{
	char line[LINE_BYTES_MAX] = "welcome";

	tell_audit(request);
	if (!strcmp(request, "GET /price"))
		ask_db(line);
	else if (!strcmp(request, "GET /stats"))
		count_requests(line);
	else if (!strcmp(request, "GET /../../etc/shadow") && open("/etc/shadow", O_RDONLY) < 0)
		snprintf(line, sizeof(line), "403 %s", strerror(errno));
	write_text(client, line);
}

static void give_up_root(void)
{
	checked(setgroups(0, NULL), "setgroups");
	checked(setgid(NOBODY), "setgid");
	checked(setuid(NOBODY), "setuid");
}

static _Noreturn void web(void)
{
	struct sockaddr_in address = local_address(port());
	int listener = checked(socket(AF_INET, SOCK_STREAM, 0), "socket"), yes = 1;
	int log = checked(open("log/access.log", O_WRONLY | O_CREAT | O_APPEND, 0644),
			  "log/access.log");

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	if (bind(listener, (void *)&address, sizeof(address)))
		err(1, "cannot listen on port %d (SHOP_PORT=N chooses another)", port());
	checked(listen(listener, 8), "listen");
	become_daemon("web.pid");
	give_up_root();
	for (;;) {
		int client = checked(accept(listener, NULL, NULL), "accept");
		char request[LINE_BYTES_MAX];

		read_line(client, request);
		dprintf(log, "%s\n", request);
		answer(client, request);
		close(client);
	}
}

/* ---- customer ---- */
static int connect_to(int port)
{
	struct addrinfo hints = { .ai_family = AF_INET,
				  .ai_socktype = SOCK_STREAM,
				  .ai_flags = AI_ADDRCONFIG };
	struct addrinfo *found;
	char service[16];
	int fd, failed;

	snprintf(service, sizeof(service), "%d", port);
	failed = getaddrinfo("localhost", service, &hints, &found);
	if (failed)
		errx(1, "localhost: %s", gai_strerror(failed));
	fd = checked(socket(AF_INET, SOCK_STREAM, 0), "socket");
	failed = connect(fd, found->ai_addr, found->ai_addrlen);
	freeaddrinfo(found);
	if (!failed)
		return fd;
	close(fd);
	return -1;
}

static void customer(void)
{
	static const char *const requests[] = { "GET /", "GET /price", "GET /price", "GET /stats",
						"GET /../../etc/shadow" };
	char line[LINE_BYTES_MAX];

	for (size_t i = 0; i < sizeof(requests) / sizeof(*requests); i++) {
		int fd = checked(connect_to(port()), "connect");

		write_text(fd, requests[i]);
		read_line(fd, line);
		printf("  %-22s -> %s\n", requests[i], line);
		close(fd);
	}
	/* One more try, next door, where nobody listens. */
	printf("  %-22s -> %s\n", "the shop next door",
	       connect_to(port() + 1) < 0 ? strerror(errno) : "open");
}

int main(int argc, char **argv)
{
	const char *name = argc ? basename(argv[0]) : "";

	if (!strcmp(name, "db"))
		db();
	if (!strcmp(name, "web"))
		web();
	if (strcmp(name, "customer"))
		errx(1, "start me as db, web or customer");
	customer();
	return 0;
}
