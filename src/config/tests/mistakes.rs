//! Every mistake that the checks know, with its place and its words.

use super::super::reference::uncommented;
use super::super::{Config, Lint, Severity};
use super::{REST, env, parse, told, with_rest, with_route};

/// What `codings` may be.
const CODINGS: &str = "write \"zstd\" or \"br\" or \"gzip\" or \"deflate\"";

/// Every row is one mistake, told once, at this place and in these words.
fn check_rows(rows: &[(&str, usize, usize, &str, &str)], file: fn(&str) -> String, first_line: usize) {
    let mut others = Vec::new();
    for (text, line, column, message, help) in rows {
        let want = vec![(line + first_line - 1, *column, message.to_string(), help.to_string())];
        let found = told(&file(text));
        if found != want {
            others.push(format!("{text}\n   {found:?}\n   and not {want:?}"));
        }
    }
    assert!(others.is_empty(), "{}", others.join("\n"));
}

#[test]
fn a_mistake_at_the_top_is_told_once_where_it_stands() {
    let token = "an admin listener that others can reach needs a token";
    let token_help = "write \"127.0.0.1:9900\", or set `admin_token`";
    let visible = "a token is visible ASCII without spaces, and not empty";
    let visible_help = "take what `openssl rand -hex 32` prints, best as \"${LARDER_TOKEN}\"";
    let rows = [
        (
            "listen = 8080",
            1,
            10,
            "expected a string or a table, found an integer",
            "write \"127.0.0.1:8080\"",
        ),
        ("listen = \":8080\"", 1, 10, "not an address with a port", "write \"0.0.0.0:8080\""),
        ("listen = []", 1, 10, "no address to listen on", "write \"127.0.0.1:8080\""),
        ("listen = [\"[::1]:1\", \"[::1]:1\"]", 1, 22, "this address is already listed", "leave it out"),
        (
            "listen = [\n  \"1.1.1.1:1\",\n  true,\n]",
            3,
            3,
            "expected a string or a table, found a boolean",
            "write \"127.0.0.1:8080\"",
        ),
        (
            "listen = { proxy_protocol = true }",
            1,
            10,
            "`listen.address` is missing",
            "write address = \"0.0.0.0:8081\"",
        ),
        (
            "listen = [{ address = \"1.1.1.1:1\", proxy = true }]",
            1,
            36,
            "unknown key `proxy` in `listen`",
            "",
        ),
        (
            "listen = [\"1.1.1.1:1\", { address = \"1.1.1.1:1\" }]",
            1,
            36,
            "this address is already listed",
            "leave it out",
        ),
        (
            "listen = { address = \"1.1.1.1:1\", proxy_protocol = 2 }",
            1,
            52,
            "expected true or false, found an integer",
            "write true or false",
        ),
        (
            "listen = \"127.0.0.1:9900\"",
            1,
            10,
            "this is where the admin listener stands by default",
            "set `admin` to another address, or to \"off\"",
        ),
        (
            "listen = \"0.0.0.0:7\"\nadmin = \"127.0.0.1:7\"",
            2,
            9,
            "the public listener has this address already",
            "write another port",
        ),
        ("admin = \"0.0.0.0:9900\"", 1, 9, token, token_help),
        ("admin = \"[::ffff:10.0.0.1]:9900\"", 1, 9, token, token_help),
        ("admin = \"of\"", 1, 9, "not an address with a port", "write such as \"127.0.0.1:9900\""),
        ("admin_token = \"\"", 1, 15, visible, visible_help),
        ("admin_token = \"a b\"", 1, 15, visible, visible_help),
        ("workers = 0", 1, 11, "out of range", "write a number from 1 to 1024"),
        ("workers = -1", 1, 11, "out of range", "write a number from 1 to 1024"),
        (
            "workers = 1.5",
            1,
            11,
            "expected a whole number, found a float",
            "write \"auto\", or a number without quotes",
        ),
        (
            "workers = \"4\"",
            1,
            11,
            "`4` is not a number of threads",
            "write \"auto\", or a number without quotes",
        ),
        ("\u{feff}worker = 4", 1, 1, "unknown key `worker`", "did you mean `workers`?"),
        ("worker = 4", 1, 1, "unknown key `worker`", "did you mean `workers`?"),
        (
            "trusted_proxies = [\"10.0.0.1/8\"]",
            1,
            20,
            "the address has bits beyond its prefix",
            "write \"10.0.0.0/8\" for the network, or \"10.0.0.1\" for the one address",
        ),
        (
            "log = 1",
            1,
            7,
            "expected a table, such as [log], found an integer",
            "write [log] on a line of its own, and what it sets below",
        ),
        ("admin = false", 1, 9, "expected a string, found a boolean", "write \"off\""),
        ("admin = true", 1, 9, "expected a string, found a boolean", "write \"127.0.0.1:9900\""),
        (
            "admin_token = 12345678",
            1,
            15,
            "a token is a string",
            "write it in quotes, best as \"${LARDER_TOKEN}\"",
        ),
        ("trusted_proxies = [10]", 1, 20, "expected a string, found an integer", "write \"10.0.0.0/8\""),
        ("[cache]\nredis = false", 2, 9, "expected a string, found a boolean", "leave it out"),
        ("[cache]\nmemory = true", 2, 10, "expected a string, found a boolean", "write \"256MiB\""),
        (
            "[cache]\nmemory = \"much\"",
            2,
            10,
            "not a size",
            "write such as \"256MiB\"; the units are B, KiB, MiB, GiB, KB, MB and GB",
        ),
        (
            "[cache]\nvariants = \"64\"",
            2,
            12,
            "expected a whole number, found a string",
            "write 64, without quotes",
        ),
        ("[cache]\nvariants = true", 2, 12, "expected a whole number, found a boolean", "write 64"),
        (
            "[cache]\nredis_deadline = \"soon\"",
            2,
            18,
            "not a duration",
            "write such as \"20ms\"; the units are ms, s, m, h and d",
        ),
        (
            "[timing]\nslow_request = \"none\"",
            2,
            16,
            "not a duration",
            "write such as \"1s\", or \"off\"; the units are ms, s, m, h and d",
        ),
        ("[timing]\nslow_request = false", 2, 16, "expected a string, found a boolean", "write \"off\""),
        (
            "[upstream.\"b.c\"]\nservers = \"http://a\"\ntimeout = \"5s\"",
            3,
            11,
            "expected a table, such as [upstream.b.c.timeout], found a string",
            "write { total = \"5s\" }",
        ),
        ("[log]\nlevel = \"inof\"", 2, 9, "`inof` is not a level", "did you mean \"info\"?"),
        (
            "[log]\nlevel = \"info,larder::slow=x\"",
            2,
            9,
            "`x` is not a level",
            "write \"off\" or \"error\" or \"warn\" or \"info\" or \"debug\" or \"trace\"",
        ),
        ("[log]\naccess = \"jsn\"", 2, 10, "unknown word", "did you mean \"json\"?"),
        ("[log]\naccess_queue = 0", 2, 16, "out of range", "write a number from 1 to 1000000"),
        (
            "[cache]\nmemory = 256",
            2,
            10,
            "a size needs a unit",
            "write \"256MiB\", or \"256B\" if bytes are meant",
        ),
        (
            "[cache]\nmemory = 268_435_456",
            2,
            10,
            "a size needs a unit",
            "write \"268435456MiB\", or \"268435456B\" if bytes are meant",
        ),
        (
            "[cache]\nmemory = \"0B\"",
            2,
            10,
            "zero makes no sense here",
            "to store nothing, write cache = false on each route",
        ),
        (
            "[cache]\nmemory = \"8MiB\"\nmax_object = \"9MiB\"",
            3,
            14,
            "`max_object` is more than `memory`",
            "write at most what `memory` is",
        ),
        ("[cache]\nredis_deadline = 20", 2, 18, "a duration needs a unit", "write \"20ms\""),
        ("[cache]\nredis_deadline = \"0ms\"", 2, 18, "zero makes no sense here", "leave out `redis` instead"),
        (
            "[cache]\nredis = \"redis://a,b\"",
            2,
            9,
            "one Redis server is named here",
            "write redis+cluster:// for the nodes of a cluster, redis+sentinel:// for sentinels",
        ),
        ("[cache]\nvariants = 0", 2, 12, "out of range", "write a number from 1 to 4096"),
        (
            "[cache]\nmax_objekt = \"1MiB\"",
            2,
            1,
            "unknown key `max_objekt` in `cache`",
            "did you mean `max_object`?",
        ),
        ("[timing]\nslow_request = 1", 2, 16, "a duration needs a unit", "write \"1s\""),
        ("[timing]\nprocess_time = \"yes\"", 2, 16, "expected true or false, found a string", "write true"),
        ("[limits]\nhead_size = \"4KiB\"", 2, 13, "out of range", "write a size from \"8KiB\" to \"16MiB\""),
        ("[limits]\nfields = 100000", 2, 10, "out of range", "write a number from 1 to 10000"),
        ("[limit]\nfields = 10", 1, 2, "unknown key `limit`", "did you mean `limits`?"),
        (
            "[upstream.\"a b\"]\nservers = [\"http://a\"]",
            1,
            11,
            "a name is 1 to 64 letters, digits, _, . or -",
            "write such as \"a-b\"",
        ),
        (
            "[upstream.b]\n",
            1,
            1,
            "`upstream.b.servers` is missing",
            "write servers = [\"http://127.0.0.1:3000\"]",
        ),
        (
            "[upstream.b]\nservers = []",
            2,
            11,
            "an upstream has at least one server",
            "write servers = [\"http://127.0.0.1:3000\"]",
        ),
        (
            "[upstream.b]\nservers = [\"https://a\"]",
            2,
            12,
            "Larder does not yet speak TLS to upstreams",
            "write http://, or put something that speaks TLS between",
        ),
        (
            "[upstream.b]\nservers = [\"http://A\", \"http://a:80/\"]",
            2,
            24,
            "this server is already listed",
            "leave it out",
        ),
        (
            "[upstream.b]\nservers = \"http://127.0.0.1:8080\"",
            2,
            11,
            "this is Larder's own `listen` address",
            "write where the API is",
        ),
        (
            "[upstream.b]\nservers = \"http://a\"\ntimeout = { conect = \"1s\" }",
            3,
            13,
            "unknown key `conect` in `upstream.b.timeout`",
            "did you mean `connect`?",
        ),
        (
            "[upstream.b]\nservers = \"http://a\"\ntimeout.total = \"0s\"",
            3,
            17,
            "zero makes no sense here",
            "a server that is given no time cannot answer",
        ),
        (
            "[upstream.b]\nservers = \"http://a\"\ntimeout = { first_byte = \"1s\", hedge_after = \"2s\" }",
            3,
            46,
            "`hedge_after` is more than `first_byte`",
            "write at most what `first_byte` is",
        ),
        (
            "[upstream.b]\nservers = \"http://a\"\ntimeout.hedge_after = \"0s\"",
            3,
            23,
            "zero makes no sense here",
            "to ask no second server, write \"off\"",
        ),
        (
            "[upstream.b]\nservers = \"http://a\"\npool = { max_connections = 4, max_idle = 5 }",
            3,
            42,
            "`max_idle` is more than `max_connections`",
            "write at most what `max_connections` is",
        ),
        (
            "[upstream.b]\nservers = \"http://a\"\npool = { max_connections = 4, max_tunnels = 5 }",
            3,
            45,
            "`max_tunnels` is more than `max_connections`",
            "write at most what `max_connections` is",
        ),
        (
            "[upstream.b]\nservers = \"http://a\"\npool.min_idle = 65",
            3,
            17,
            "`min_idle` is more than `max_idle`",
            "write at most what `max_idle` is",
        ),
        (
            "[upstream.b]\nservers = \"http://a\"\npool.idle_timeout = \"0s\"",
            3,
            21,
            "zero makes no sense here",
            "to keep no connections, write max_idle = 0",
        ),
    ];
    check_rows(&rows, with_rest, 1);
}

#[test]
fn a_mistake_in_a_route_is_told_once_where_it_stands() {
    // The route's own lines stand from line 8.
    let rows = [
        ("nme = 1", 1, 1, "unknown key `nme` in `route`", "did you mean `name`?"),
        (
            "rate_limit = \"100/s\"",
            1,
            14,
            "expected a table, such as [route.rate_limit], found a string",
            "write { rate = \"100/s\" }",
        ),
        (
            "rate_limit = []",
            1,
            14,
            "an empty list of limits limits nothing",
            "write { rate = \"100/s\" }, or leave it out for no limit",
        ),
        (
            "rate_limit = false",
            1,
            14,
            "expected a table, such as [route.rate_limit], found a boolean",
            "leave it out",
        ),
        ("rate_limit = {}", 1, 14, "`route.rate_limit.rate` is missing", "write rate = \"100/s\""),
        ("rate_limit = { rate = \"100\" }", 1, 23, "not a rate", "write \"100/s\""),
        (
            "rate_limit = { rate = \"1/s\", burst = 0 }",
            1,
            38,
            "out of range",
            "write a number from 1 to 1000000",
        ),
        (
            "rate_limit = { rate = \"1/s\", by = \"ip\" }",
            1,
            35,
            "not what clients can be told by",
            "write \"address\", or { header = \"X-Api-Key\" }",
        ),
        (
            "rate_limit = { rate = \"1/s\", by = {} }",
            1,
            35,
            "`by` says nothing",
            "write \"address\", or { header = \"X-Api-Key\" }",
        ),
        (
            "rate_limit = { rate = \"1/s\", by = { header = \"a b\" } }",
            1,
            46,
            "not a field name",
            "write such as \"X-Api-Key\"",
        ),
        (
            "rate_limit = { rate = \"1/s\", clients = 10 }",
            1,
            40,
            "out of range",
            "write a number from 1024 to 16777216",
        ),
        (
            "rate_limit = [{ rate = \"1/s\" }, { rate = \"1/s\" }]",
            1,
            33,
            "this limit is already listed",
            "leave it out: each request would count twice",
        ),
        (
            "cache = 1",
            1,
            9,
            "expected false, or a table, [route.cache], found an integer",
            "write [route.cache] on a line of its own, and what it sets below",
        ),
        (
            "cache.ttl = \"60s\"",
            1,
            13,
            "`ttl` alone does not say which lifetime is meant",
            "name one of the three",
        ),
        ("cache.ttl.default = \"60\"", 1, 21, "a duration needs a unit", "write \"60s\""),
        (
            "cache.ttl.defualt = \"60s\"",
            1,
            11,
            "unknown key `defualt` in `route.cache.ttl`",
            "did you mean `default`?",
        ),
        ("cache.stale_if_error = 600", 1, 24, "a duration needs a unit", "write \"600s\""),
        ("[route.cache]\nheuristic = false", 2, 13, "expected a string, found a boolean", "write \"off\""),
        (
            "[route.cache]\ncookies = false",
            2,
            11,
            "expected a word or a list of names, found a boolean",
            "write \"origin\" or \"bypass\" or \"ignore\", or a list such as [\"lang\"]",
        ),
        ("max_body = false", 1, 12, "expected a string, found a boolean", "write \"off\""),
        ("request_headers.set.X-A = 5", 1, 27, "expected a string, found an integer", "write \"5\""),
        ("[route.cache]\ncookies = \"orign\"", 2, 11, "unknown word", "did you mean \"origin\"?"),
        ("[route.cache]\ncookies = []", 2, 11, "an empty list of cookies", "write \"ignore\""),
        ("[route.cache]\ncookies = [\"a=b\"]", 2, 12, "not the name of a cookie", "write such as \"lang\""),
        (
            "[route.cache]\nauthorization = \"per_credential\"",
            2,
            17,
            "unknown word",
            "did you mean \"per-credential\"?",
        ),
        (
            "[route.cache]\nmethods = [\"GET\", \"PUT\"]",
            2,
            19,
            "not a method that can be cached",
            "write \"GET\" or \"HEAD\" or \"QUERY\" or \"POST\"",
        ),
        (
            "[route.cache]\nmethods = []",
            2,
            11,
            "an empty list of methods",
            "write cache = false in place of [route.cache]",
        ),
        (
            "[route.cache]\nset_cookie = \"drop\"",
            2,
            14,
            "unknown word",
            "write \"origin\" or \"never\" or \"strip\" or \"keep\"",
        ),
        (
            "[route.cache]\nheuristic = \"on\"",
            2,
            13,
            "neither \"off\" nor a table",
            "write \"off\", or { percent = 10, max = \"1d\" }",
        ),
        (
            "[route.cache]\nheuristic = { percent = 101 }",
            2,
            25,
            "out of range",
            "write a number from 1 to 100",
        ),
        (
            "[route.cache]\nclient_cache_control = \"honor\"",
            2,
            24,
            "unknown word",
            "did you mean \"honour\"?",
        ),
        (
            "[route.cache]\nvary.normalize = [\"accept\"]",
            2,
            19,
            "not a field whose meaning is known",
            "write \"accept-language\"",
        ),
        (
            "[route.cache]\nvary.normalize = \"Accept-Encoding\"",
            2,
            18,
            "Accept-Encoding is always taken by its meaning",
            "leave it out",
        ),
        (
            "[route.cache]\nkey.headers = [\"Cookie\"]",
            2,
            16,
            "cookies have their own setting",
            "write cookies = [\"…\"] beside `key`",
        ),
        (
            "[route.cache]\nkey.headers = \"authorization\"",
            2,
            15,
            "credentials have their own setting",
            "write authorization = \"per-credential\" beside `key`",
        ),
        (
            "compress = 1",
            1,
            12,
            "expected true, or a table, [route.compress], found an integer",
            "write true",
        ),
        ("[route.compress]\ncodings = [\"brotli\"]", 2, 12, "unknown word", CODINGS),
        ("[route.compress]\ncodings = [\"gzp\"]", 2, 12, "unknown word", "did you mean \"gzip\"?"),
        (
            "[route.compress]\ncodings = []",
            2,
            11,
            "an empty `codings` would compress nothing",
            "write compress = false, or leave it out for the usual ones",
        ),
        (
            "[route.compress]\ntypes = [\"*\", \"*/*\"]",
            2,
            15,
            "not a media type with at most one *",
            "write such as \"application/json\", \"text/*\" or \"*+json\"",
        ),
        (
            "[route.compress]\ntypes = [\"text\"]",
            2,
            10,
            "not a media type with at most one *",
            "write such as \"application/json\", \"text/*\" or \"*+json\"",
        ),
        (
            "[route.compress]\nmin_size = \"0B\"",
            2,
            12,
            "zero makes no sense here",
            "write \"1B\" for every body",
        ),
        (
            "[route.compress]\nmin_size = \"2KiB\"\nmax_size = \"1KiB\"",
            2,
            12,
            "`min_size` is larger than `max_size`: no body is between them",
            "raise `max_size`, or lower `min_size`",
        ),
        (
            "[route.cache]\nkey.headers = [\"a b\"]",
            2,
            16,
            "not a field name",
            "write such as \"Accept-Language\"",
        ),
        (
            "[route.cache]\nkey.ignore_query = [\"a=1\"]",
            2,
            21,
            "not the name of a query argument",
            "write such as \"utm_*\" or \"gclid\"",
        ),
        (
            "request_headers.set.Connection = \"close\"",
            1,
            21,
            "`connection` cannot be edited",
            "it belongs to one connection, and Larder makes its own for each (RFC 9110 §7.6.1)",
        ),
        (
            "request_headers.remove = \"content-length\"",
            1,
            26,
            "`content-length` cannot be edited",
            "it says where the body ends, so a wrong one corrupts what follows",
        ),
        (
            "request_headers = { set = { \"X-A\" = \" a\" } }",
            1,
            37,
            "space around a field value is lost",
            "leave it out",
        ),
        (
            "request_headers = { set = { \"X-A\" = \"a\\r\\nb: c\" } }",
            1,
            37,
            "not a field value",
            "write visible ASCII",
        ),
        (
            "request_headers = { set = { \"X-A\" = \"a\", x-a = \"b\" } }",
            1,
            42,
            "`x-a` is set twice",
            "leave one out; case plays no part in field names",
        ),
        ("response_headers = { add = {} }", 1, 22, "unknown key `add` in `route.response_headers`", ""),
    ];
    check_rows(&rows, with_route, 8);
}

#[test]
fn a_mistake_in_a_match_is_told_once_where_it_stands() {
    let file = |m: &str| with_rest("").replace("{ path = \"/*\" }", m);
    let rows = [
        ("\"/*\"", 9, "expected a table, such as [route.match], found a string", "write { path = \"/*\" }"),
        ("{}", 9, "`match` says nothing", "write match = { path = \"/*\" } for everything"),
        ("{ path = \"users\" }", 18, "a path starts with /", "write \"/users\""),
        (
            "{ path = \"/users*\" }",
            18,
            "* cannot stand here",
            "* stands only in a final /*; for more write regex = \"…\" instead of path",
        ),
        (
            "{ path = \"/*/x\" }",
            18,
            "* cannot stand here",
            "* stands only in a final /*; for more write regex = \"…\" instead of path",
        ),
        ("{ path = \"/a?b=c\" }", 18, "only the path is matched, not the query", "write \"/a\""),
        ("{ path = \"/é x\" }", 18, "paths arrive percent-encoded", "write \"/%C3%A9%20x\""),
        ("{ path = [] }", 18, "an empty `path` would match nothing", "leave it out for any"),
        (
            "{ path = \"/a\", regex = \"x\" }",
            32,
            "a route has either `path` or `regex`",
            "leave out one of them",
        ),
        ("{ regex = \"(\" }", 19, "not a regular expression", "found open group without closing ')'"),
        ("{ host = \"a:80\" }", 18, "not a host", "write \"a\"; the port plays no part"),
        (
            "{ host = \"*\" }",
            18,
            "not a host",
            "write a name such as \"api.example.com\" or \"*.example.com\"",
        ),
        (
            "{ host = \"a.*.com\" }",
            18,
            "not a host",
            "write a name such as \"api.example.com\" or \"*.example.com\"",
        ),
        ("{ method = \"get\" }", 20, "methods are in upper case", "write \"GET\""),
        ("{ method = [\"GET\", \"A B\"] }", 28, "not a method", "write such as \"GET\""),
        ("{ pth = \"/a\" }", 11, "unknown key `pth` in `route.match`", "did you mean `path`?"),
    ];
    for (m, column, message, help) in rows {
        let want = vec![(6, column, message.to_string(), help.to_string())];
        assert_eq!(told(&file(m)), want, "{m}");
    }
}

#[test]
fn what_is_missing_is_told_at_the_table_that_lacks_it() {
    let api = "[upstream.api]\nservers = [\"http://a\"]\n";
    let rows = [
        (api.to_owned(), 3, "`route` is missing"),
        (format!("{api}route = []\n").replace(api, "") + api, 1, "`route` is missing"),
        (format!("{api}[[route]]\nmatch.path = \"/*\"\nupstream = \"api\""), 3, "`route.name` is missing"),
        (format!("{api}[[route]]\nname = \"a\"\nupstream = \"api\""), 3, "`route.match` is missing"),
        (format!("{api}[[route]]\nname = \"a\"\nmatch.path = \"/*\""), 3, "`route.upstream` is missing"),
        (format!("{api}[route]\nname = \"a\""), 3, "routes are a list"),
        (format!("{api}[[rout]]\nname = \"a\""), 3, "unknown key `rout`"),
    ];
    for (text, line, message) in rows {
        let told: Vec<_> = told(&text).into_iter().map(|p| p.2).collect();
        assert_eq!(told, [message], "{text}");
        let at = parse(&text).unwrap_err().iter().next().unwrap().line;
        assert!(at == line || message == "`route` is missing", "{text}: {at}");
    }
}

#[test]
fn a_dangling_upstream_offers_the_nearest() {
    let dangling = "there is no upstream `apj`".to_owned();
    let text = REST.replace("upstream = \"api\"", "upstream = \"apj\"");
    assert_eq!(told(&text), [(7, 12, dangling.clone(), "did you mean \"api\"?".into())]);
    let none = "[[route]]\nname = \"a\"\nmatch.path = \"/*\"\nupstream = \"apj\"\n";
    assert_eq!(told(none), [(4, 12, dangling, "write [upstream.apj] with its servers".into())]);
}

#[test]
fn two_routes_of_one_name_are_both_shown() {
    let text =
        with_route("[[route]]\nname = \"all\"\nmatch.host = \"x\"\nupstream = \"api\"\n").replace("/*", "/a");
    assert_eq!(told(&text), [(9, 8, "two routes are named `all`".into(), "write another name".into())]);
    let shown = parse(&text).unwrap_err().to_string();
    assert!(
        shown.contains("5 | name = \"all\"\n  |        ----- the first\n...\n9 | name = \"all\"\n"),
        "{shown}"
    );
}

#[test]
fn a_route_that_can_never_match_shows_both_places() {
    let text = with_route("[[route]]\nname = \"late\"\nmatch = { path = \"/users\" }\nupstream = \"api\"\n");
    let want = "error: route `late` can never match
  --> proxy.toml:10:9
   |
 6 | match = { path = \"/*\" }
   |         --------------- `all` stands earlier and takes all that it would take
...
10 | match = { path = \"/users\" }
   |         ^^^^^^^^^^^^^^^^^^^ move it before `all`
   = help: the first matching route wins

1 problem in proxy.toml";
    assert_eq!(parse(&text).unwrap_err().to_string(), want);
}

#[test]
fn a_route_with_a_wrong_match_shadows_nothing() {
    let text = with_route("[[route]]\nname = \"late\"\nmatch = { path = \"users\" }\nupstream = \"api\"\n");
    assert_eq!(told(&text).len(), 1, "{}", parse(&text).unwrap_err());
}

#[test]
fn a_bare_ttl_offers_the_three_names() {
    let shown = parse(&with_route("[route.cache]\nttl = \"90s\"\n")).unwrap_err().to_string();
    let want = "error: `ttl` alone does not say which lifetime is meant
 --> proxy.toml:9:7
  |
9 | ttl = \"90s\"
  |       ^^^^^ name one of the three
  = help: ttl.default = \"90s\"   is for responses of which the origin gives no lifetime
  = help: ttl.override = \"90s\"  is used in place of any lifetime that the origin gives
  = help: ttl.max = \"90s\"       shortens any lifetime that is longer

1 problem in proxy.toml";
    assert_eq!(shown, want);
}

#[test]
fn five_different_mistakes_are_five_problems_in_the_order_of_the_file() {
    let text = "listen = \"localhost:8080\"
[cache]
memory = 256
redis_dedline = \"20ms\"
[upstream.api]
servers = [\"http://127.0.0.1:3000\"]
[[route]]
name = \"users\"
match = { path = \"/users/*\" }
upstream = \"apii\"
[route.cache]
ttl = \"60s\"
";
    let places: Vec<_> = told(text).into_iter().map(|p| (p.0, p.1)).collect();
    assert_eq!(places, [(1, 10), (3, 10), (4, 1), (10, 12), (12, 7)]);
    assert!(parse(text).unwrap_err().to_string().ends_with("\n5 problems in proxy.toml"));
}

#[test]
fn a_mistake_in_tomls_syntax_is_told_alone_and_in_place() {
    let rows = [
        ("listen = \"a", 1, "not TOML"),
        ("a = 1\na = 2", 2, "this key is written twice"),
        ("[cache\nmemory = 1", 1, "not TOML"),
        ("listen = 127.0.0.1:80", 1, "not TOML"),
        ("workers =", 1, "not TOML"),
    ];
    for (text, line, message) in rows {
        let told = told(text);
        assert_eq!((told.len(), told[0].0), (1, line), "{text}");
        assert!(told[0].2.starts_with(message), "{text}: {}", told[0].2);
    }
}

#[test]
fn a_key_in_the_wrong_table_is_told_where_it_belongs() {
    let top = "it belongs at the top of the file, above the first [table]";
    let rows = [
        ("memory = \"1MiB\"\n", "it belongs in [cache]"),
        ("[cache]\nworkers = 2\n", top),
        ("[log]\nadmin = \"off\"\n", top),
        ("[limits]\nmax_body = \"1MiB\"\n", "it belongs in a [[route]]"),
        ("[cache]\nttl.default = \"1s\"\n", "it belongs in [route.cache]"),
        ("[cache]\nstale_if_error = \"1s\"\n", "it belongs in [route.cache]"),
        ("[limits]\ntotal = \"1s\"\n", "it belongs in [upstream.NAME.timeout]"),
        ("[timing]\nrate = \"1/s\"\n", "it belongs in a [[route]], as `rate_limit.rate`"),
        ("[cache]\ntimeout = { total = \"1s\" }\n", "it belongs in [upstream.NAME]"),
        ("[cache]\ntimeout = \"1s\"\n", "it belongs at the top of the file, as `otlp.timeout`"),
        // A table is not told to be a line at the top, where it would be there twice.
        ("[log]\ncache = false\n", "it belongs in a [[route]]"),
        ("[log]\ntiming = \"off\"\n", "it belongs in a table of its own, [timing]"),
        ("[cache.upstream.b]\nservers = []\n", "it belongs in a table of its own, [upstream.NAME]"),
        ("proxy_protocol = true\n", "it belongs at the top of the file, as `listen.proxy_protocol`"),
        // Known twice.
        ("max = \"1s\"\n", "it belongs in [route.cache], as `ttl.max` or `heuristic.max`"),
        // A slip is a slip, and what is known nowhere has a list of what is.
        ("[limits]\nstream = 5\n", "did you mean `streams`?"),
        ("[limits]\ncolour = 5\n", ""),
    ];
    for (text, help) in rows {
        let told = told(&with_rest(text));
        assert_eq!((told.len(), told[0].3.as_str()), (1, help), "{text}: {told:?}");
        assert!(told[0].2.starts_with("unknown key `"), "{told:?}");
    }
    let rows = [
        ("path = \"/a\"\n", "it belongs in a [[route]], as `match.path`"),
        (
            "tags = { set = [\"a\"] }\n",
            "it belongs in the [[route]] itself, above any [route.…], as `request_headers.set` or `response_headers.set`",
        ),
        ("ttl.default = \"1s\"\n", "it belongs in [route.cache]"),
        ("connect = \"1s\"\n", "it belongs in [upstream.NAME.timeout]"),
        ("[route.cache]\nupgrade = true\n", "it belongs in the [[route]] itself, above any [route.…]"),
        ("[route.cache]\nmemory = \"1MiB\"\n", "it belongs in [cache]"),
    ];
    for (text, help) in rows {
        let told = told(&with_route(text));
        assert_eq!((told.len(), told[0].3.as_str()), (1, help), "{text}: {told:?}");
    }
}

#[test]
fn an_upstream_below_a_table_of_its_route_is_sent_back_to_the_route() {
    let route =
        "[upstream.api]\nservers = [\"http://a\"]\n[[route]]\nname = \"all\"\nmatch = { path = \"/*\" }\n";
    let told = told(&format!("{route}[route.cache]\nupstream = \"api\"\n"));
    let help = "it belongs in the [[route]] itself, above any [route.…]";
    assert!(told.iter().any(|problem| problem.3 == help), "{told:?}");
    // Whoever does so has a good file.
    parse(&format!("{route}upstream = \"api\"\n[route.cache]\n")).unwrap();
}

#[test]
fn what_is_told_in_place_of_a_wrong_type_is_right_for_every_setting() {
    let text = uncommented();
    let all = super::super::reference::settings();
    assert!(all.len() > 100, "{}", all.len());
    let (mut wrong, mut tried) = (Vec::new(), 0);
    for (place, value) in values(&text) {
        for other in ["true", "false", "7", "[[]]"] {
            let with = |new: &str| format!("{}{new}{}", &text[..place], &text[place + value.len()..]);
            let Err(problems) = parse(&with(other)) else { continue };
            let line = 1 + text[..place].matches('\n').count();
            // What is told of another place follows from this one.
            let Some(problem) = problems.iter().find(|problem| problem.line == line) else { continue };
            let Some(better) = problem.help.strip_prefix("write ") else { continue };
            let better = better.split(" or ").next().unwrap().split(';').next().unwrap();
            let better = better.trim_start_matches("such as ").trim_end_matches(", without quotes");
            let better = better.trim_end_matches(',');
            if !problem.message.starts_with("expected")
                || better.starts_with('[') && better.contains(" on a line")
            {
                continue;
            }
            tried += 1;
            let column = problem.column - 1;
            let text = with(other);
            let start = text.split('\n').take(line - 1).map(|line| line.len() + 1).sum::<usize>();
            let at = start + text[start..].char_indices().nth(column).unwrap().0;
            // The mistake may be a part of the value, such as a member of a list.
            let end = if at == place { place + other.len() } else { at + "[]".len() };
            let mended = format!("{}{better}{}", &text[..at], &text[end..]);
            if let Err(problems) = parse(&mended)
                && problems
                    .iter()
                    .any(|problem| problem.line == line && problem.message.starts_with("expected"))
            {
                wrong.push(format!("{better:?} in place of {other}:\n{problems}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {tried}\n{}", wrong.len(), wrong.join("\n"));
    assert!(tried > 150, "{tried}");
}

/// Where each value of a file stands, and how it is written.
fn values(text: &str) -> Vec<(usize, String)> {
    fn walk(text: &str, table: &toml::de::DeTable<'_>, out: &mut Vec<(usize, String)>) {
        for value in table.values() {
            let written = &text[value.span()];
            match value.get_ref() {
                toml::de::DeValue::Table(inner) if !written.starts_with('{') => walk(text, inner, out),
                toml::de::DeValue::Array(list) if list.iter().any(|member| member.get_ref().is_table()) => {
                    list.iter()
                        .filter_map(|member| member.get_ref().as_table())
                        .for_each(|t| walk(text, t, out));
                }
                _ => out.push((value.span().start, written.to_owned())),
            }
        }
    }
    let mut out = Vec::new();
    walk(text, toml::de::DeTable::parse(text).unwrap().get_ref(), &mut out);
    out
}

#[test]
fn how_a_setting_is_turned_off_is_right_for_each() {
    let text = uncommented();
    // Another setting may then be too large for this one.
    let is_fine = |text: &str, line| {
        parse(text).map_or_else(|problems| problems.iter().all(|problem| problem.line != line), |_| true)
    };
    let mut tried = 0;
    for (place, value) in values(&text) {
        let with = |new: &str| format!("{}{new}{}", &text[..place], &text[place + value.len()..]);
        let Err(problems) = parse(&with("false")) else { continue };
        for problem in problems.iter().filter(|problem| problem.help.starts_with("write \"off\"")) {
            tried += 1;
            assert!(is_fine(&with("\"off\""), problem.line), "{problem:?}");
        }
        for off in ["\"0s\"", "\"0B\"", "[]", "0"] {
            for problem in problems.iter().filter(|problem| problem.help == format!("write {off}")) {
                tried += 1;
                assert!(is_fine(&with(off), problem.line), "{problem:?}");
            }
        }
    }
    assert!(tried > 12, "{tried}");
}

#[test]
fn a_memory_tier_that_is_larger_than_the_process_may_be_is_a_warning() {
    let within = |text: &str, limit| Config::parse_within(text, "proxy.toml", &env, limit).unwrap();
    let (written, default) = (with_rest("[cache]\nmemory = \"1GiB\"\n"), with_rest(""));
    for (text, limit, place) in [
        (&written, Some((1 << 30) - 1), Some((2, 10, "this is more than the 1023 MiB"))),
        (&written, Some(1 << 30), None),
        (&written, None, None),
        (
            &default,
            Some(100 << 20),
            Some((1, 1, "the default of `cache.memory`, 256 MiB, is more than the 100 MiB")),
        ),
        (&default, Some(1 << 30), None),
    ] {
        let config = within(text, limit);
        let told: Vec<_> =
            config.warnings.iter().map(|it| (it.line, it.column, it.message.as_str())).collect();
        match place {
            None => assert!(told.is_empty(), "{told:?}"),
            Some((line, column, message)) => {
                assert_eq!((told.len(), told[0].0, told[0].1), (1, line, column), "{told:?}");
                assert!(told[0].2.starts_with(message), "{told:?}");
                assert_eq!(config.warning_but(&[Lint::MemoryBeyondLimit]), None);
            }
        }
    }
}

#[test]
fn what_works_and_is_dangerous_or_does_nothing_is_a_warning() {
    let rows = [
        ("trusted_proxies = [\"0.0.0.0/0\"]", 1, 20, "anyone may claim any address"),
        ("trusted_proxies = [\"10.0.0.0/8\", \"::/0\"]", 1, 34, "anyone may claim any address"),
        ("trusted_proxies = [\"0.0.0.0/1\", \"fd00::/8\"]", 1, 20, "anyone may claim any address"),
        ("trusted_proxies = [\"::ffff:0.0.0.0/96\"]", 1, 20, "anyone may claim any address"),
        (
            "listen = { address = \"[::]:1\", proxy_protocol = true }",
            1,
            10,
            "anyone who reaches a `proxy_protocol` listener",
        ),
        ("admin_token = \"fifteen-bytes-1\"", 1, 15, "a token of fewer than 16 bytes can be guessed"),
        ("[cache]\nredis_secret_file = \"/s\"", 2, 21, "there is no `redis` for it to seal"),
    ];
    for (top, line, column, message) in rows {
        let config = parse(&with_rest(top)).unwrap_or_else(|problems| panic!("{problems}"));
        let [warning] = &config.warnings.iter().collect::<Vec<_>>()[..] else { panic!("{top}") };
        assert_eq!((warning.line, warning.column), (line, column), "{top}");
        assert_eq!(warning.severity, Severity::Warning);
        assert!(warning.message.starts_with(message) && !warning.help.is_empty(), "{top}: {warning:?}");
        let told = config.warning().unwrap();
        assert!(told.starts_with("warning: ") && told.ends_with("1 warning in proxy.toml"), "{told}");
        assert!(told.contains("  | ") && told.contains('^'), "{told}");
    }
    for fine in [
        "",
        "trusted_proxies = [\"10.0.0.0/8\", \"fc00::/7\", \"192.0.2.1\"]",
        "admin_token = \"sixteen-bytes-12\"",
        "[cache]\nredis = \"redis://db\"\nredis_secret_file = \"/s\"",
        "listen = { address = \"10.0.0.5:1\", proxy_protocol = true }",
        "trusted_proxies = [\"10.0.0.9\"]\nlisten = { address = \"[::]:1\", proxy_protocol = true }",
    ] {
        assert_eq!(parse(&with_rest(fine)).unwrap().warning(), None, "{fine}");
    }
    // Those of a route, and of two settings: each says where, what it risks, and what to do.
    let rows = [
        (
            "authorization = \"share\"",
            17,
            "what one user's credentials are answered is stored",
            "per-credential",
        ),
        ("cookies = \"ignore\"", 11, "what a request with a cookie is answered", "[\"lang\"]"),
        ("set_cookie = \"keep\"", 14, "a cookie that the origin sets for one client", "strip"),
        ("deception_guard = false", 19, "a link to /account/x.css", "leave it out"),
        ("methods = [\"GET\", \"POST\"]", 11, "a POST that is answered from the cache", "only reads"),
        ("key.ignore_query = [\"a\", \"*\"]", 26, "no argument of a query is part of the key", "utm_*"),
        ("key.ignore_query = \"**\"", 20, "no argument of a query is part of the key", "utm_*"),
        ("ttl = { default = \"2m\", max = \"1m\" }", 19, "no lifetime is longer than `ttl.max`", "at most"),
        ("ttl = { override = \"2m\", max = \"1m\" }", 20, "no lifetime is longer than `ttl.max`", "at most"),
        (
            "stale_while_revalidate = \"1m\"\nstale_if_error = \"1m\"",
            18,
            "`stale_if_error` never applies: a stale answer is given for that long anyway",
            "more than what `stale_while_revalidate` is",
        ),
        (
            "stale_if_error = \"1h\"\nstale_if_disconnected = \"1m\"",
            25,
            "`stale_if_disconnected` never applies: an origin that cannot be reached",
            "more than what `stale_if_error` is",
        ),
        ("methods = [\"HEAD\"]", 11, "a HEAD is answered from what a GET has brought", "add \"GET\""),
        (
            "cookies = [\"lang\"]\nttl.override = \"1m\"",
            16,
            "what the origin marks as one user's by max-age=0",
            "ttl.default",
        ),
        (
            "set_cookie = \"strip\"\nttl = { override = \"1m\" }",
            20,
            "what the origin marks as one user's by max-age=0",
            "ttl.default",
        ),
        (
            "[otlp]\nqueue = 7\nsample = \"1/2\"\nendpoint = \"http://a\"\n[log]\ntrace = \"off\"",
            12,
            "`log.trace` is \"off\": no request has a trace",
            "make",
        ),
        (
            "[otlp]\nendpoint = \"http://a\"\nsample = \"1/2\"",
            10,
            "this is of the traces that Larder begins",
            "make",
        ),
        ("[limits]\ndrain = \"9s\"\nlame_duck = \"9s\"", 13, "all of `drain` is `lame_duck`", "less than"),
    ];
    for (setting, column, message, help) in rows {
        let text = match setting.starts_with('[') {
            true => with_rest(setting),
            false => with_route(&format!("[route.cache]\n{setting}\n")),
        };
        let config = parse(&text).unwrap_or_else(|problems| panic!("{problems}"));
        let [warning] = &config.warnings.iter().collect::<Vec<_>>()[..] else { panic!("{setting}") };
        assert_eq!((warning.severity, warning.column), (Severity::Warning, column), "{setting}");
        assert!(warning.message.starts_with(message) && warning.help.contains(help), "{warning:?}");
        let told = config.warning().unwrap();
        assert!(setting.lines().any(|line| told.contains(&format!("| {line}\n"))), "{setting}");
        let name = warning.name.unwrap();
        assert!(told.contains(&format!(" = name: {}\n", name.as_str())), "{told}");
        assert_eq!(config.warning_but(&[name]), None, "{setting}");
    }
    for fine in [
        "authorization = \"per-credential\"",
        "cookies = [\"lang\"]",
        "set_cookie = \"strip\"",
        "deception_guard = true",
        "methods = [\"GET\", \"QUERY\"]",
        "key.ignore_query = [\"utm_*\"]",
        "ttl = { default = \"1m\", max = \"1m\" }",
        "ttl.override = \"1m\"",
        "ttl = { override = \"1m\" }\nauthorization = \"per-credential\"\nset_cookie = \"never\"",
        "cookies = [\"lang\"]\nttl.default = \"1m\"",
        "methods = [\"QUERY\"]",
        "stale_while_revalidate = \"1m\"\nstale_if_error = \"2m\"\nstale_if_disconnected = \"3m\"",
        "stale_while_revalidate = \"1m\"\nstale_if_error = \"0s\"\nstale_if_disconnected = \"0s\"",
    ] {
        let config = parse(&with_route(&format!("[route.cache]\n{fine}\n"))).unwrap();
        assert_eq!(config.warning(), None, "{fine}");
    }
    // The origin cannot answer one user where it does not know whom.
    for (field, setting) in
        [("Cookie", "cookies = \"ignore\""), ("Authorization", "authorization = \"share\"")]
    {
        let edits = format!("request_headers.remove = [\"{field}\"]\n[route.cache]\n{setting}\n");
        assert_eq!(parse(&with_route(&edits)).unwrap().warning(), None, "{setting}");
    }
    for fine in ["[limits]\ndrain = \"3s\"", "[limits]\ndrain = \"0s\"", "[limits]\nlame_duck = \"29s\""] {
        assert_eq!(parse(&with_rest(fine)).unwrap().warning(), None, "{fine}");
    }
    // A dangerous setting and a lifetime in place of the origin's are two things to be told.
    let shared = "[route.cache]\nauthorization = \"share\"\nttl.override = \"1m\"\n";
    let names: Vec<_> =
        parse(&with_route(shared)).unwrap().warnings.iter().filter_map(|it| it.name).collect();
    assert_eq!(names, [Lint::SharedCredentials, Lint::OverriddenPrivate]);
    let hidden = format!("request_headers.remove = [\"Authorization\"]\n{shared}");
    assert_eq!(parse(&with_route(&hidden)).unwrap().warning(), None);
    // What Redis keeps no longer, where there is one.
    for (top, window, name) in [
        ("[cache]\nredis = \"redis://a\"\n", "8d", Some(Lint::BeyondRedis)),
        ("[cache]\nredis = \"redis://a\"\n", "7d", None),
        ("", "8d", None),
    ] {
        let route = with_route(&format!("[route.cache]\nstale_if_error = \"{window}\"\n"));
        let config = parse(&format!("{top}{route}")).unwrap();
        assert_eq!(config.warnings.iter().find_map(|warning| warning.name), name, "{top} {window}");
    }
    // Beside a mistake both are told.
    let both = parse(&with_rest("admin_token = \"short\"\nwrokers = 1\n")).unwrap_err().to_string();
    assert!(both.contains("warning: a token") && both.contains("error: unknown key"), "{both}");
    assert!(both.ends_with("1 problem and 1 warning in proxy.toml"), "{both}");
}

#[test]
fn no_secret_is_shown_whatever_is_wrong_with_it_or_beside_it() {
    let secret = "hunter2";
    let rows = [
        "admin_token = \"hunter2 x\"",
        "admin_token = [\"hunter2\"]",
        "admin_token = \"hunter2${hunter2 }\"",
        "admin_token = \"hunter2${\"",
        "admin_token = \"hunter2",
        "admin_token = hunter2",
        "admin_tokne = \"hunter2\"",
        "admin_token = \"hunter2-hunter2-hunter2\"\nadmin_token = \"hunter2\"",
        "admin_token = \"short\"\n[cache]\nredis_password = \"hunter2\"",
        "[cache]\nredis = \"redis://u:hunter2@db/x\"",
        "[cache]\nredis = \"rediss://:hunter2@db/x\"",
        "[cache]\nredis = \"redis://:hunter2\"",
        "[cache]\nredis = \"redis://:hun@hunter2@db\"",
        "[cache]\nredis = [\"redis://:hunter2@db\"]",
        "[cache]\nredis = { url = \"redis://:hunter2@db/x\" }",
        "[cache.redis]\nurl = \"redis://:hunter2@db\"\npassword = \"hunter2\"",
        "[cache.redis]\nurl = \"redis://db\"\npassword = [\"hunter2\"]",
        "[cache.redis]\nurl = \"redis://db\"\nsentinel_password = \"hunter2\"",
        "[cache.redis]\nurl = \"redis://db\"\npassword_file = \"hunter2hunter2\"",
        "[cache]\nredis_secret_file = \"hunter2hunter2\"",
        "[upstream.b]\nservers = \"http://u:hunter2@a\"",
        "[upstream.b]\nservers = \"http://u:hunter2/x@a\"",
        "[upstream.b]\nservers = [{ url = \"http://u:hunter2@a\" }]",
    ];
    for top in rows {
        let shown = parse(&with_rest(top)).expect_err(top).to_string();
        assert!(!shown.contains(secret) && shown.contains('^'), "{top}\n{shown}");
    }
    let route = [
        "request_headers = { set = { Authorization = \"Basic hunter2\" }, add = {} }",
        "request_headers.set.Authorization = \" Basic hunter2\"",
        "request_headers.set.x-api-key = [\"hunter2\"]",
    ];
    for lines in route {
        let shown = parse(&with_route(lines)).expect_err(lines).to_string();
        assert!(!shown.contains(secret) && shown.contains('^'), "{lines}\n{shown}");
    }
    // What the environment holds is no better known.
    let hidden = |name: &str| Some(if name == "SECRET" { "hunter2 x".to_owned() } else { String::new() });
    for top in ["admin_token = \"${SECRET}\"", "[cache]\nredis_secret_file = \"${SECRET}\""] {
        let shown = Config::parse(&with_rest(top), "f", &hidden).expect_err(top).to_string();
        assert!(!shown.contains(secret) && shown.contains("${SECRET}"), "{top}\n{shown}");
    }
}

#[test]
fn what_only_follows_from_a_mistake_is_not_told_beside_it() {
    let slip =
        with_rest("").replacen("[[route]]", "[[routes]]", 1) + "\n[route.cache]\nttl.default = \"60s\"\n";
    let rows = [
        (slip, "unknown key `routes`"),
        (
            with_rest(
                "[cache.redis]\nsentinels = [\"a:1\"]\nmaster = \"m\"\nsentinel_user = \"u\"\n\
                 sentinel_password = \"${LARDER_TEST_UNSET}\"\n",
            ),
            "the environment has no `LARDER_TEST_UNSET`",
        ),
        (
            with_rest(
                "[cache.redis]\nurl = \"redis://a\"\nuser = \"u\"\npassword = \"${LARDER_TEST_UNSET}\"\n",
            ),
            "the environment has no `LARDER_TEST_UNSET`",
        ),
    ];
    for (text, message) in rows {
        let told: Vec<_> = told(&text).into_iter().map(|(_, _, message, _)| message).collect();
        assert_eq!(told, [message], "{text}");
    }
}
