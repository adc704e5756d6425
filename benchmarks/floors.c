/* The least that a server can do with the generator's load, to compare a MetaHub with on the same machine.
 *
 *     floors echo|relay SENDERS [unix:PATH]
 *
 * echo sends what it reads back; relay sends it on, unread, to a partner: the first so many connections have
 * the next so many, one each. It says on standard output where it listens, and runs until it is killed. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void check(int result, const char *what) {
    if (result < 0) {
        fprintf(stderr, "error: %s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static int listen_somewhere(const char *path) {
    struct sockaddr_in tcp = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    socklen_t size = sizeof tcp;
    int listener = socket(path ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    check(listener, "socket");
    if (path) {
        snprintf(local.sun_path, sizeof local.sun_path, "%s", path + strlen("unix:"));
        check(bind(listener, (struct sockaddr *)&local, sizeof local), "bind");
        printf("listening on %s\n", path);
    } else {
        check(bind(listener, (struct sockaddr *)&tcp, size), "bind");
        check(getsockname(listener, (struct sockaddr *)&tcp, &size), "getsockname");
        printf("listening on 127.0.0.1:%d\n", ntohs(tcp.sin_port));
    }
    check(listen(listener, 1024), "listen");
    fflush(stdout);
    return listener;
}

/* Blocking: the generator reads whatever happens, so there is nothing to wait for but the processor. */
static int send_all(int socket, const char *bytes, ssize_t size) {
    for (ssize_t sent; size > 0; bytes += sent, size -= sent)
        if ((sent = send(socket, bytes, size, MSG_NOSIGNAL)) < 0) return -1;
    return 0;
}

int main(int count, char **arguments) {
    if (count < 3) return fputs("usage: floors echo|relay SENDERS [unix:PATH]\n", stderr), 2;
    int relays = !strcmp(arguments[1], "relay"), senders = atoi(arguments[2]), open = 0, yes = 1;
    int listener = listen_somewhere(count > 3 ? arguments[3] : NULL), epoll = epoll_create1(0);
    static int sockets[65536];
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = UINT32_MAX};
    check(epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event), "epoll_ctl");
    for (;;) {
        struct epoll_event events[1024];
        static char bytes[65536];
        int found = epoll_wait(epoll, events, 1024, -1);
        for (int i = 0; i < found; i++) {
            if (events[i].data.u32 == UINT32_MAX) { /* all that wait, for a partner must be there */
                while ((sockets[open] = accept(listener, NULL, NULL)) >= 0) {
                    setsockopt(sockets[open], IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
                    event.data.u32 = open;
                    check(epoll_ctl(epoll, EPOLL_CTL_ADD, sockets[open++], &event), "epoll_ctl");
                }
                continue;
            }
            int from = events[i].data.u32, partner = from < senders ? from + senders : from - senders;
            ssize_t size = recv(sockets[from], bytes, sizeof bytes, MSG_DONTWAIT);
            if (size < 0 && errno == EAGAIN) continue;
            if (size <= 0 || send_all(sockets[relays ? partner : from], bytes, size) < 0) return 0;
        }
    }
}
