/* Plays all the hubs of a cluster in one process, and measures the server between them.
 *
 * Some hubs keep a window of requests in flight to others, which answer them. Every request has an
 * id of its own, and it is checked that it arrived once, at the hub it was for, with its content and with
 * its sender stamped, and that its answer says ok. What was measured is one line of JSON on standard output.
 *
 * Arguments are NAME=VALUE (see `settings`). Exit status 0: measured (look at "faults"); 1: it could not be.
 *
 * A peer can be measured with the same load: `dialect` is loopal, or nats, or one of two floors, which
 * floors.c serves: echo (the server sends each line back) and relay (it sends it on to a fixed partner). */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
#define MILLISECOND 1000000LL
#define HEARTBEAT (15 * SECOND) /* of each hub, as our hubs do by default */
#define REGISTERING 128         /* hubs that may be registering at one time */
#define FIRST_ID (1LL << 40)    /* of requests; what a hub asks for itself has smaller ones */

static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("error: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

/* Settings. */

enum dialect { LOOPAL, NATS, RELAY, ECHO };
static const char *const dialects[] = {"loopal", "nats", "relay", "echo"};
static const char *const observing[] = {"none", "reads", "deaf"};

static struct {
    const char *connect, *token, *dialect, *observer;
    long hubs, senders, receivers, agents, window, bytes, delay_ms, slow_window, slow_ms, events, pid, requests;
    long ask, bare, mutual;
    double seconds, warm_up, patience;
} set = {.token = "", .dialect = "loopal", .observer = "none", .hubs = 16, .senders = 8, .receivers = 8,
         .agents = 1, .window = 16, .bytes = 200, .slow_ms = 500, .seconds = 1, .warm_up = 0.2, .patience = 20};

static const struct {
    const char *name;
    const char **text;
    long *count;
    double *seconds;
} settings[] = {
    {"connect", &set.connect, 0, 0},            /* HOST:PORT (numeric) or unix:PATH */
    {"token", &set.token, 0, 0},                /* of the MetaHub */
    {"dialect", &set.dialect, 0, 0},            /* what the server is */
    {"hubs", 0, &set.hubs, 0},                  /* in all; those that have no other part are idle */
    {"senders", 0, &set.senders, 0},            /* the first so many of them send */
    {"receivers", 0, &set.receivers, 0},        /* to the next so many */
    {"mutual", 0, &set.mutual, 0},              /* 1: the senders send to each other */
    {"agents", 0, &set.agents, 0},              /* announced by each hub */
    {"window", 0, &set.window, 0},              /* requests in flight, of all senders together */
    {"bytes", 0, &set.bytes, 0},                /* of text in each request */
    {"delay_ms", 0, &set.delay_ms, 0},          /* before a receiver answers */
    {"slow_window", 0, &set.slow_window, 0},    /* requests in flight to one more hub, by the same senders */
    {"slow_ms", 0, &set.slow_ms, 0},            /* before that one answers */
    {"events", 0, &set.events, 0},              /* a second, from one more hub */
    {"observer", &set.observer, 0, 0},          /* of the events: none, reads or deaf */
    {"ask", 0, &set.ask, 0},                    /* 1: meta/ask, with as much text in the reply */
    {"bare", 0, &set.bare, 0},                  /* 1: the receivers' agents by bare name, each in turn */
    {"seconds", 0, 0, &set.seconds},            /* to measure */
    {"warm_up", 0, 0, &set.warm_up},            /* before that */
    {"patience", 0, 0, &set.patience},          /* with hubs that do not register and answers that do not come */
    {"requests", 0, &set.requests, 0},          /* to measure, instead of a time */
    {"pid", 0, &set.pid, 0},                    /* of the server, whose CPU time and memory are measured */
};

static enum dialect dialect;

static int one_of(const char *name, const char *value, const char *const *words, int count) {
    for (int i = 0; i < count; i++)
        if (!strcmp(words[i], value)) return i;
    die("%s=%s is not known", name, value);
    return -1;
}

static void read_settings(int count, char **arguments) {
    for (int i = 1; i < count; i++) {
        char *value = strchr(arguments[i], '=');
        if (!value) die("%s is not NAME=VALUE", arguments[i]);
        *value++ = 0;
        size_t at = 0, known = sizeof settings / sizeof *settings;
        while (at < known && strcmp(settings[at].name, arguments[i])) at++;
        if (at == known) die("there is no setting %s", arguments[i]);
        char *end = "";
        if (settings[at].text) *settings[at].text = value;
        if (settings[at].count) *settings[at].count = strtol(value, &end, 10);
        if (settings[at].seconds) *settings[at].seconds = strtod(value, &end);
        if (*end || end == value) die("%s=%s is not a number", arguments[i], value);
    }
    if (!set.connect) die("connect= is missing");
    dialect = one_of("dialect", set.dialect, dialects, 4);
    one_of("observer", set.observer, observing, 3);
    if (set.mutual) set.receivers = 0;
    long parts = set.senders + set.receivers + (set.slow_window > 0) + (set.events > 0);
    if (set.hubs < parts) die("hubs=%ld is less than the %ld that have a part", set.hubs, parts);
    if (set.senders < 1 || set.senders + set.receivers < 2) die("too few senders or receivers");
    if (dialect == RELAY && set.senders != set.receivers) die("a relay needs as many receivers as senders");
    if (set.agents < 1 || set.window < 1 || set.bytes < 1) die("agents, window and bytes are at least 1");
}

/* JSON: what is in an object, without looking into it further. */

struct slice {
    const char *at;
    size_t size;
};

static bool is(struct slice slice, const char *text) {
    return slice.at && slice.size == strlen(text) && !memcmp(slice.at, text, slice.size);
}

static const char *after_string(const char *at, const char *end) {
    for (at++; (at = memchr(at, '"', end - at)); at++) {
        const char *before = at;
        while (before[-1] == '\\') before--;
        if ((at - before) % 2 == 0) return at + 1;
    }
    return end;
}

static const char *after_value(const char *at, const char *end) {
    int depth = 0;
    while (at < end) {
        if (*at == '"') {
            at = after_string(at, end);
        } else {
            if (depth == 0 && (*at == ',' || *at == '}' || *at == ']')) return at;
            depth += (*at == '{' || *at == '[') - (*at == '}' || *at == ']');
            at++;
            if (depth == 0 && (at[-1] == '}' || at[-1] == ']')) return at;
        }
        if (depth == 0 && at < end && (*at == ',' || *at == '}' || *at == ']')) return at;
    }
    return end;
}

/* The values of some keys (with their quotes) of an object without white space between its parts. */
static void members(struct slice object, int count, const char *const *keys, struct slice *values) {
    memset(values, 0, count * sizeof *values);
    const char *at = object.at + 1, *end = object.at + object.size;
    while (object.at && at < end && *at == '"') {
        const char *key = at, *value = after_string(at, end) + 1;
        at = after_value(value, end);
        for (int i = 0; i < count; i++)
            if (is((struct slice){key, value - 1 - key}, keys[i])) values[i] = (struct slice){value, at - value};
        at++;
    }
}

static struct slice member(struct slice object, const char *key) {
    struct slice value;
    members(object, 1, &key, &value);
    return value;
}

/* Connections: a hub each, and the observer. */

struct buffer {
    char *bytes;
    size_t start, end, room;
};

struct connection {
    int fd;
    long hub;          /* its number, or -1 */
    bool ready;        /* registered and announced */
    bool dirty;        /* in the list of those to be flushed */
    bool blocked;      /* waits until it can be written to */
    long last_id;      /* of what it has asked for itself */
    long turn;         /* which receiver is next */
    bool message;      /* NATS: the next line is the content of the message with this head */
    char head[256];
    struct buffer in, out;
};

static struct connection *hubs, observer, **dirty;
static int epoll;
static long dirty_count, ready_count, event_count, event_seq, event_gaps, refused_count;
static char first_fault[300];

static char *room_for(struct buffer *buffer, size_t size) {
    if (buffer->start == buffer->end) buffer->start = buffer->end = 0;
    if (buffer->start > buffer->room / 2) {
        memmove(buffer->bytes, buffer->bytes + buffer->start, buffer->end - buffer->start);
        buffer->end -= buffer->start, buffer->start = 0;
    }
    if (buffer->room - buffer->end < size) {
        buffer->room = 2 * buffer->room + size;
        if (!(buffer->bytes = realloc(buffer->bytes, buffer->room))) die("out of memory");
    }
    return buffer->bytes + buffer->end;
}

static void say(struct connection *peer, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(struct connection *peer, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    va_list again;
    va_copy(again, arguments);
    size_t room = 512;
    int size = vsnprintf(room_for(&peer->out, room), room, format, arguments);
    if ((size_t)size >= room) vsnprintf(room_for(&peer->out, size + 1), size + 1, format, again);
    va_end(again);
    va_end(arguments);
    peer->out.end += size;
    if (!peer->dirty) peer->dirty = true, dirty[dirty_count++] = peer;
}

static void fault(const char *what, struct slice line) {
    if (!*first_fault) snprintf(first_fault, sizeof first_fault, "%s: %.*s", what, (int)line.size, line.at);
}

static void watch(struct connection *peer, int change, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = peer};
    if (epoll_ctl(epoll, change, peer->fd, &event)) die("epoll_ctl: %s", strerror(errno));
}

static void flush(struct connection *peer) {
    struct buffer *out = &peer->out;
    while (out->start < out->end) {
        ssize_t sent = send(peer->fd, out->bytes + out->start, out->end - out->start, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EAGAIN) break;
        if (sent < 0) die("cannot write to the server: %s", strerror(errno));
        out->start += sent;
    }
    bool blocked = out->start < out->end;
    if (blocked != peer->blocked) {
        peer->blocked = blocked;
        watch(peer, EPOLL_CTL_MOD, blocked ? EPOLLIN | EPOLLOUT : EPOLLIN);
    }
}

static void flush_all(void) {
    for (long i = 0; i < dirty_count; i++) {
        dirty[i]->dirty = false;
        if (!dirty[i]->blocked) flush(dirty[i]);
    }
    dirty_count = 0;
}

static void open_connection(struct connection *peer, long hub) {
    struct sockaddr_in tcp = {.sin_family = AF_INET};
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    struct sockaddr *address = (struct sockaddr *)&tcp;
    socklen_t size = sizeof tcp;
    if (!strncmp(set.connect, "unix:", 5)) {
        snprintf(local.sun_path, sizeof local.sun_path, "%s", set.connect + 5);
        address = (struct sockaddr *)&local, size = sizeof local;
    } else {
        char host[64] = "";
        const char *colon = strrchr(set.connect, ':');
        if (colon) snprintf(host, sizeof host, "%.*s", (int)(colon - set.connect), set.connect);
        if (!colon || inet_pton(AF_INET, host, &tcp.sin_addr) != 1) die("%s is not an address", set.connect);
        tcp.sin_port = htons(atoi(colon + 1));
    }
    peer->hub = hub;
    peer->fd = socket(address->sa_family, SOCK_STREAM, 0);
    if (peer->fd < 0) die("socket: %s", strerror(errno));
    if (connect(peer->fd, address, size)) die("cannot connect to %s: %s", set.connect, strerror(errno));
    int yes = 1;
    if (address->sa_family == AF_INET) setsockopt(peer->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    watch(peer, EPOLL_CTL_ADD, EPOLLIN);
}

/* Load: streams of requests, each a closed loop. */

struct histogram { /* of nanoseconds */
    long counts[64 * 64], total;
    int64_t largest;
};

struct stream {
    long first, receivers, window; /* the hubs that it goes to, and how many requests are in flight */
    int64_t delay;                 /* before they answer */
    struct histogram latency;
    struct due { /* answers that are not due yet, in order: they all have the same delay */
        struct connection *hub;
        int64_t at;
        long long id;
    } *due;
    long due_first, due_count;
};

struct request {
    long long id;
    struct connection *sender;
    struct stream *stream;
    long receiver;
    int64_t sent_at;
    bool arrived, open;
};

static struct stream streams[2];
static struct request *requests;
static long slots, open_count, misplaced_count, doubled_count, events_sent;
static bool stopping;
static char *text;
static unsigned nonce; /* of this run, so that no server takes its requests for repetitions */


/* For each power of two 64 counts, so that a value is known to 1.6 %. */
static void record(struct histogram *histogram, int64_t value) {
    int shift = value < 128 ? 0 : 57 - __builtin_clzll(value);
    histogram->counts[64 * shift + (value >> shift)]++;
    histogram->total++;
    if (value > histogram->largest) histogram->largest = value;
}

static double microseconds(const struct histogram *histogram, double share) {
    long left = share * histogram->total;
    for (long at = 0; at < 64 * 64; at++)
        if ((left -= histogram->counts[at]) < 0) {
            int shift = at < 128 ? 0 : at / 64 - 1;
            return (double)((at - 64L * shift) << shift) / 1000;
        }
    return histogram->largest / 1000.0;
}

static long receiver_for(struct connection *sender, struct stream *stream) {
    if (dialect == RELAY || dialect == ECHO) return stream->first + sender->hub;
    for (;;) {
        long hub = stream->first + sender->turn++ % stream->receivers;
        if (hub != sender->hub) return hub;
    }
}

static void send_request(struct request *request) {
    struct connection *sender = request->sender;
    long to = request->receiver = receiver_for(sender, request->stream);
    request->id += slots;
    request->arrived = false;
    request->open = true;
    open_count++;
    if (dialect == NATS) {
        say(sender, "PUB hub-%ld.agent hub-%ld.%lld %ld\r\n%s\r\n", to, sender->hub, request->id, set.bytes, text);
    } else {
        char target[64];
        if (set.bare) snprintf(target, sizeof target, "agent-%ld-%lld", to, request->id / slots % set.agents);
        else snprintf(target, sizeof target, "hub-%ld/agent-%ld-0", to, to);
        say(sender,
            "{\"id\":%lld,\"jsonrpc\":\"2.0\",\"method\":\"meta/%s\",\"params\":{\"content\":{\"text\":\"%s\"},"
            "\"id\":\"%08x-0000-4000-8000-%012llx\",\"source\":{\"Agent\":\"agent-%ld-0\"},\"target\":\"%s\","
            "\"timestamp\":\"2026-04-02T09:42:12.123456+00:00\"}}\n",
            request->id, set.ask ? "ask" : "route", text, nonce, request->id, sender->hub, target);
    }
    request->sent_at = now();
}

static void on_settled(long long id, bool ok, struct slice line) {
    struct request *request = &requests[id % slots];
    if (id < FIRST_ID || request->id != id || !request->open) {
        fault("an answer to what was not asked, or is answered already", line);
        doubled_count++;
        return;
    }
    if (!ok) fault("refused", line), refused_count++;
    if (ok && !request->arrived && dialect != ECHO) fault("said ok, but did not arrive", line), misplaced_count++;
    record(&request->stream->latency, now() - request->sent_at);
    request->open = false;
    open_count--;
    if (!stopping) send_request(request);
}

static void answer(struct connection *hub, long long id) {
    if (dialect == NATS) /* the reply subject is found again by the number of the request */
        say(hub, "PUB hub-%ld.%lld 2\r\nok\r\n", requests[id % slots].sender->hub, id);
    else if (set.ask)
        say(hub, "{\"id\":%lld,\"jsonrpc\":\"2.0\",\"result\":{\"outcome\":{\"outcome\":\"done\",\"result\":\"%s\"}}}\n", id, text);
    else
        say(hub, "{\"id\":%lld,\"jsonrpc\":\"2.0\",\"result\":{\"ok\":true}}\n", id);
}

/* A request has arrived: check that it is the right one, and answer `leg`, now or later. */
static void on_arrived(struct connection *hub, long long leg, long long id, bool intact, struct slice line) {
    struct request *request = id < FIRST_ID ? NULL : &requests[id % slots];
    if (!request || request->id != id || !request->open || request->receiver != hub->hub || !intact) {
        fault("arrived at the wrong hub, changed, or without its sender", line);
        misplaced_count++;
    } else if (request->arrived) {
        fault("arrived twice", line);
        doubled_count++;
    } else {
        struct stream *stream = request->stream;
        request->arrived = true;
        if (stream->delay)
            stream->due[(stream->due_first + stream->due_count++) % stream->window] =
                (struct due){hub, now() + stream->delay, leg};
        else
            answer(hub, leg);
    }
}

static int64_t answer_due(struct stream *stream) { /* and say when the next one is due, or 0 */
    while (stream->due_count) {
        struct due *due = &stream->due[stream->due_first];
        if (due->at > now()) return due->at;
        answer(due->hub, due->id);
        stream->due_first = (stream->due_first + 1) % stream->window;
        stream->due_count--;
    }
    return 0;
}

/* The dialect of a hub. */

static void register_hub(struct connection *hub) {
    long n = hub->hub;
    if (dialect == NATS)
        say(hub, "CONNECT {\"verbose\":false}\r\nSUB hub-%ld.* 1\r\nPING\r\n", n);
    else if (n < 0)
        say(hub, "{\"id\":1,\"jsonrpc\":\"2.0\",\"method\":\"hub/register\",\"params\":{\"name\":\"observer\","
            "\"protocol\":{\"features\":[],\"version\":1},\"role\":\"observer\",\"token\":\"%s\"}}\n", set.token);
    else
        say(hub, "{\"id\":1,\"jsonrpc\":\"2.0\",\"method\":\"meta/register\",\"params\":{\"capabilities\":[],"
            "\"instance\":\"%08x-0000-4000-8000-%012lx\",\"name\":\"hub-%ld\",\"protocol\":{\"features\":[\"announce\","
            "\"ask\",\"complete\",\"reconcile\"],\"version\":1},\"token\":\"%s\"}}\n", nonce, n, n, set.token);
    hub->last_id = 1;
}

static void beat(struct connection *hub, long agents) {
    say(hub, "{\"jsonrpc\":\"2.0\",\"method\":\"meta/heartbeat\",\"params\":{\"agent_count\":%ld,\"hub_name\":"
        "\"hub-%ld\"}}\n{\"id\":%ld,\"jsonrpc\":\"2.0\",\"method\":\"meta/announce\",\"params\":{\"ended\":[],\"started\":[",
        set.agents, hub->hub, ++hub->last_id);
    for (long i = 0; i < agents; i++)
        say(hub, "%s{\"id\":\"%08lx-0000-4000-8000-%012lx\",\"name\":\"agent-%ld-%ld\",\"parent\":null,\"type\":\"worker\"}",
            i ? "," : "", i, hub->hub, hub->hub, i);
    say(hub, "],\"whole\":%s}}\n", agents ? "true" : "false");
}

/* An answer to what a hub or the observer has asked for itself: registered, then announced or subscribed. */
static void on_own_answer(struct connection *peer, long id, bool ok, struct slice line) {
    if (!ok) die("refused: %.*s", (int)line.size, line.at);
    if (id == 1 && peer->hub >= 0) beat(peer, set.agents);
    if (id == 1 && peer->hub < 0)
        say(peer, "{\"id\":2,\"jsonrpc\":\"2.0\",\"method\":\"hub/subscribe\",\"params\":{}}\n");
    if (id == 2) peer->ready = true, ready_count++;
}

static void on_event(struct slice params) {
    struct slice values[2];
    members(params, 2, (const char *const[]){"\"seq\"", "\"agent\""}, values);
    long seq = values[0].at ? strtol(values[0].at, NULL, 10) : 0;
    if (event_seq && seq != event_seq + 1) event_gaps += seq - event_seq - 1;
    event_seq = seq;
    event_count += is(values[1], "\"noisy\"");
}

static bool is_intact(struct slice envelope, long long id) {
    enum { CONTENT, ORIGIN, SOURCE };
    struct slice values[3], body;
    members(envelope, 3, (const char *const[]){"\"content\"", "\"origin_hub\"", "\"source\""}, values);
    body = member(values[CONTENT], "\"text\"");
    if (body.size != (size_t)set.bytes + 2 || memcmp(body.at + 1, text, set.bytes)) return false;
    if (dialect == RELAY) return true;
    long from = requests[id % slots].sender->hub;
    char origin[64], source[96];
    snprintf(origin, sizeof origin, "\"hub-%ld\"", from);
    snprintf(source, sizeof source, "{\"Agent\":\"hub-%ld/agent-%ld-0\"}", from, from);
    /* Loopal stamps no origin_hub, so it is only checked where it is. */
    return is(values[SOURCE], source) && (!values[ORIGIN].at || is(values[ORIGIN], origin));
}

static void on_request(struct connection *hub, long long leg, struct slice method, struct slice params,
                       struct slice line) {
    bool message = is(method, "\"agent/message\"") || is(method, "\"agent/ask\"") || dialect == RELAY;
    if (message) {
        struct slice uuid = member(params, "\"id\"");
        long long id = uuid.size == 38 ? strtoll(uuid.at + 25, NULL, 16) : 0;
        on_arrived(hub, leg, id, id >= FIRST_ID && is_intact(params, id), line);
    } else if (is(method, "\"hub/hub_lost\"")) {
        say(hub, "{\"id\":%lld,\"jsonrpc\":\"2.0\",\"result\":{\"ok\":true}}\n", leg);
    } else {
        say(hub, "{\"error\":{\"code\":-32601,\"message\":\"not here\"},\"id\":%lld,\"jsonrpc\":\"2.0\"}\n", leg);
    }
}

static void on_json(struct connection *peer, struct slice line) {
    enum { ID, METHOD, PARAMS, RESULT };
    struct slice values[4];
    members(line, 4, (const char *const[]){"\"id\"", "\"method\"", "\"params\"", "\"result\""}, values);
    long long id = values[ID].at ? strtoll(values[ID].at, NULL, 10) : 0;
    if (dialect == ECHO) return on_settled(id, true, line);
    if (values[METHOD].at) {
        if (values[ID].at) on_request(peer, id, values[METHOD], values[PARAMS], line);
        else if (is(values[METHOD], "\"hub/event\"")) on_event(values[PARAMS]);
        return;
    }
    struct slice result = values[RESULT];
    if (id < FIRST_ID) return on_own_answer(peer, id, result.at, line);
    struct slice outcome = set.ask && result.at ? member(result, "\"outcome\"") : result;
    if (set.ask && outcome.at) result = member(outcome, "\"result\"");
    on_settled(id, set.ask ? result.size == (size_t)set.bytes + 2 : is(result, "{\"ok\":true}"), line);
}

/* NATS says MSG SUBJECT 1 [REPLY-SUBJECT] SIZE, and on the next line what is in it. */
static void on_nats(struct connection *hub, struct slice line) {
    static char head[256];
    if (hub->message) {
        hub->message = false;
        if (strstr(hub->head, ".agent ")) {
            const char *dot = strrchr(hub->head, '.');
            long long id = dot ? strtoll(dot + 1, NULL, 10) : 0;
            bool intact = line.size == (size_t)set.bytes && !memcmp(line.at, text, line.size);
            on_arrived(hub, id, id, intact, line);
        } else {
            on_settled(strtoll(strchr(hub->head, '.') + 1, NULL, 10), is(line, "ok"), line);
        }
        return;
    }
    snprintf(head, sizeof head, "%.*s", (int)line.size, line.at);
    if (!strncmp(head, "MSG ", 4)) hub->message = true, memcpy(hub->head, head, sizeof hub->head);
    else if (!strcmp(head, "PONG")) hub->ready = true, ready_count++;
    else if (!strcmp(head, "PING")) say(hub, "PONG\r\n");
    else if (!strncmp(head, "-ERR", 4)) die("%s", head);
}

static void read_lines(struct connection *peer) {
    struct buffer *in = &peer->in;
    char *bytes = room_for(in, 65536);
    ssize_t size = recv(peer->fd, bytes, 65536, MSG_DONTWAIT);
    if (size < 0 && errno == EAGAIN) return;
    if (size <= 0) die("the server has closed the connection of hub-%ld", peer->hub);
    const char *from = bytes, *end;
    in->end += size;
    while ((end = memchr(from, '\n', in->bytes + in->end - from))) {
        const char *line = in->bytes + in->start;
        size_t length = end - line - (end > line && end[-1] == '\r');
        (dialect == NATS ? on_nats : on_json)(peer, (struct slice){line, length});
        in->start = end + 1 - in->bytes;
        from = end + 1;
    }
}

/* The loop. */

static int timer;

static void wait_for_some(int64_t until) {
    struct epoll_event events[1024];
    struct itimerspec at = {.it_value = {until / SECOND, until % SECOND}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
    flush_all();
    int found = epoll_wait(epoll, events, 1024, -1);
    for (int i = 0; i < found; i++) {
        struct connection *peer = events[i].data.ptr;
        uint64_t expirations;
        if (!peer) {
            if (read(timer, &expirations, sizeof expirations) < 0) continue;
        } else {
            if (events[i].events & EPOLLOUT) flush(peer);
            if (events[i].events & ~EPOLLOUT) read_lines(peer);
        }
    }
    flush_all();
}

static int64_t earliest(int64_t one, int64_t other) {
    return one && one < other ? one : other;
}

static int64_t started_at, events_from, beaten;

/* Everything that is due by the clock; return when the next thing is. */
static int64_t keep_up(int64_t at) {
    int64_t next = at + SECOND;
    for (int i = 0; i < 2; i++) next = earliest(answer_due(&streams[i]), next);
    if (dialect != LOOPAL) return next;
    for (; beaten < set.hubs * (at - started_at) / HEARTBEAT; beaten++)
        if (hubs[beaten % set.hubs].ready) beat(&hubs[beaten % set.hubs], 0);
    next = earliest(started_at + (beaten + 1) * HEARTBEAT / set.hubs, next);
    if (!events_from || stopping || !set.events) return next;
    struct connection *noisy = &hubs[set.senders + set.receivers + (set.slow_window > 0)];
    for (; events_sent < (at - events_from) * set.events / SECOND; events_sent++)
        say(noisy, "{\"jsonrpc\":\"2.0\",\"method\":\"agent/event\",\"params\":{\"agent_name\":\"noisy\",\"payload\":"
            "{\"Stream\":{\"text\":\"%.*s\"}}}}\n", (int)(set.bytes < 200 ? set.bytes : 200), text);
    return earliest(at + MILLISECOND, next);
}

static bool run_until(int64_t deadline, bool (*done)(void)) {
    for (int64_t at; !done() && (at = now()) < deadline;) wait_for_some(earliest(deadline, keep_up(at)));
    return done();
}

/* Phases. */

static long wanted_ready;
static bool is_ready(void) { return ready_count >= wanted_ready; }
static bool is_never(void) { return false; }
static bool is_settled(void) { return open_count == 0 && (strcmp(set.observer, "reads") || event_count >= events_sent); }
static bool is_enough(void) { return streams[0].latency.total >= set.requests; }

static void connect_all(void) {
    started_at = now();
    for (long n = 0; n < set.hubs; n++) {
        open_connection(&hubs[n], n);
        if (dialect == RELAY || dialect == ECHO) continue;
        register_hub(&hubs[n]);
        wanted_ready = n - REGISTERING;
        if (!run_until(now() + set.patience * SECOND, is_ready)) die("only %ld hubs could register", ready_count);
    }
    if (strcmp(set.observer, "none") && dialect == LOOPAL) {
        open_connection(&observer, -1);
        register_hub(&observer);
    }
    wanted_ready = dialect == RELAY || dialect == ECHO ? 0 : set.hubs + (observer.fd > 0);
    if (!run_until(now() + set.patience * SECOND, is_ready)) die("only %ld hubs could register", ready_count);
    if (!strcmp(set.observer, "deaf")) watch(&observer, EPOLL_CTL_DEL, 0);
}

static void prepare(void) {
    text = malloc(set.bytes + 1);
    for (long i = 0; i < set.bytes; i++) text[i] = "the quick brown fox jumps over "[i % 31];
    text[set.bytes] = 0;
    hubs = calloc(set.hubs, sizeof *hubs);
    dirty = calloc(set.hubs + 1, sizeof *dirty);
    long first = set.mutual ? 0 : set.senders;
    streams[0] = (struct stream){.first = first, .receivers = set.mutual ? set.senders : set.receivers,
                                 .window = set.window, .delay = set.delay_ms * MILLISECOND};
    streams[1] = (struct stream){.first = set.senders + set.receivers, .receivers = 1,
                                 .window = set.slow_window, .delay = set.slow_ms * MILLISECOND};
    slots = set.window + set.slow_window;
    requests = calloc(slots, sizeof *requests);
    for (long i = 0; i < slots; i++) {
        long of_stream = i < set.window ? i : i - set.window;
        requests[i] = (struct request){.id = FIRST_ID / slots * slots + slots + i, .stream = &streams[i >= set.window],
                                       .sender = &hubs[of_stream % set.senders]};
    }
    for (int i = 0; i < 2; i++) streams[i].due = calloc(streams[i].window + 1, sizeof *streams[i].due);
    epoll = epoll_create1(0);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &event);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    nonce = now() ^ getpid();
}

/* What the kernel knows of the server. */

static double server_cpu(void) { /* seconds, of all its threads */
    char path[300];
    double total = 0;
    snprintf(path, sizeof path, "/proc/%ld/task", set.pid);
    DIR *tasks = set.pid ? opendir(path) : NULL;
    for (struct dirent *task; tasks && (task = readdir(tasks));) {
        snprintf(path, sizeof path, "/proc/%ld/task/%s/schedstat", set.pid, task->d_name);
        FILE *file = fopen(path, "r");
        double ns = 0;
        if (file && fscanf(file, "%lf", &ns) == 1) total += ns / SECOND;
        if (file) fclose(file);
    }
    if (tasks) closedir(tasks);
    return total;
}

static double server_megabytes(void) {
    char path[64], line[200];
    long kilobytes = 0;
    snprintf(path, sizeof path, "/proc/%ld/status", set.pid);
    FILE *file = set.pid ? fopen(path, "r") : NULL;
    while (file && fgets(line, sizeof line, file)) sscanf(line, "VmRSS: %ld", &kilobytes);
    if (file) fclose(file);
    return kilobytes * 1024 / 1e6;
}

static double own_cpu(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void show_latency(const char *name, const struct stream *stream, double seconds) {
    const struct histogram *latency = &stream->latency;
    printf("\"%s\":{\"routes\":%ld,\"per_second\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f},", name,
           latency->total, latency->total / seconds, microseconds(latency, .5), microseconds(latency, .99),
           latency->largest / 1000.0);
}

static void show_text(const char *text) { /* as JSON */
    for (; *text; text++)
        if (*text == '"' || *text == '\\') printf("\\%c", *text);
        else if ((unsigned char)*text >= ' ') putchar(*text);
}

int main(int count, char **arguments) {
    read_settings(count, arguments);
    prepare();
    connect_all();
    double connected = (now() - started_at) / 1e9, idle_megabytes = server_megabytes();

    events_from = now();
    for (long i = 0; i < slots; i++) send_request(&requests[i]);
    run_until(now() + set.warm_up * SECOND, is_never);
    for (int i = 0; i < 2; i++) streams[i].latency = (struct histogram){0};

    int64_t from = now();
    double cpu = server_cpu(), own = own_cpu();
    long events_before = event_count;
    if (set.requests) run_until(from + 3600 * SECOND, is_enough);
    else run_until(from + set.seconds * SECOND, is_never);
    double seconds = (now() - from) / 1e9;
    cpu = server_cpu() - cpu, own = own_cpu() - own;
    struct stream measured[2] = {streams[0], streams[1]};
    long events_seen = event_count - events_before;

    stopping = true;
    run_until(now() + set.patience * SECOND, is_settled);

    long routes = measured[0].latency.total + measured[1].latency.total;
    printf("{\"seconds\":%.4f,", seconds);
    show_latency("load", &measured[0], seconds);
    if (set.slow_window) show_latency("slow", &measured[1], seconds);
    printf("\"server_cpu_us\":%.3f,\"generator_cores\":%.3f,\"server_cores\":%.3f,", routes ? cpu / routes * 1e6 : 0,
           own / seconds, cpu / seconds);
    printf("\"connect_seconds\":%.4f,\"idle_mb\":%.1f,\"mb\":%.1f,", connected, idle_megabytes, server_megabytes());
    printf("\"events\":{\"sent\":%ld,\"seen\":%ld,\"gaps\":%ld,\"per_second\":%.1f},", events_sent, event_count,
           event_gaps, events_seen / seconds);
    printf("\"faults\":{\"lost\":%ld,\"refused\":%ld,\"misplaced\":%ld,\"doubled\":%ld,\"first\":\"", open_count,
           refused_count, misplaced_count, doubled_count);
    show_text(first_fault);
    printf("\"}}\n");
    return 0;
}
