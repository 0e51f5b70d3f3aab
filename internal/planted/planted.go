// Package planted makes store URLs with a secret in every place in which somebody may write one, rightly or by mistake, for
// tests that look for it in what people read.
package planted

import "strings"

// The two halves of the secret; neither may be told.
const (
	first  = "Pl4ntedHalf"
	second = "0therHalf"
)

// shapes are URLs in which § is the secret. What they name is on this machine, and not there.
var shapes = []string{
	"redis://§@127.0.0.1:1", "redis://:§@127.0.0.1:1", "redis://bee:§@127.0.0.1:1", "rediss://bee:§@127.0.0.1:1/0", "valkey://bee:§@127.0.0.1:1",
	"REDIS://bee:§@127.0.0.1:1", " redis://bee:§@127.0.0.1:1", "redis://bee:§@127.0.0.1:1 ",
	"redis:§@127.0.0.1:1", "redis:/bee:§@127.0.0.1:1", "redis//§@127.0.0.1:1", "redis//:§@127.0.0.1:1", "redis///bee:§@127.0.0.1:1", "redis:///bee:§@127.0.0.1:1",
	"//:§@127.0.0.1:1", "//bee:§@127.0.0.1:1/0", "§@127.0.0.1:1", ":§@127.0.0.1:1", "bee:§@127.0.0.1:1", "bee:§@127.0.0.1:1/0",
	"redis://:§", "redis://bee:§", "redis://:§/0", "redis://:§?ns=a", "redis://127.0.0.1:§", "rediss://:§", "redis+cluster://:§", "redis-sentinel://:§/m",
	"redis://bee:§@", "redis://bee:§@:", "redis://bee:§@127.0.0.1:port", "redis://bee:§@127.0.0.1:99999", "redis://bee:§@127.0.0.1:1:2", "redis://bee:§@[::1", "redis://bee:§@::1:1",
	"redis://bee:§@127.0.0.1:1/database", "redis://bee:§@127.0.0.1:1/-1", "redis://127.0.0.1:1/bee:§@x", "redis://bee:§@127.0.0.1,127.0.0.2",
	"redis://bee:§@127.0.0.1:1?bogus=1", "redis://bee:§@127.0.0.1:1?ns=a/b", "redis://bee:§@127.0.0.1:1?timeout=soon", "redis://bee:§@127.0.0.1:1?durability=some",
	"redis://bee:§@127.0.0.1:1?shards=0", "redis://bee:§@127.0.0.1:1?db=1", "redis://bee:§@127.0.0.1:1?password_file=/none", "redis://bee:§@127.0.0.1:1?ca_file=/none",
	"redis://127.0.0.1:1?password=§", "redis://127.0.0.1:1?pass=§&ns=a", "redis://127.0.0.1:1?auth=§", "redis://127.0.0.1:1?%zz&token=§", "redis://127.0.0.1:1?§@x",
	"redis+unix://:§@/nowhere/redis.sock", "redis+unix://bee:§@host/nowhere.sock", "redis+unix://§@", "redis+unix://:§@/nowhere/redis.sock?db=x",
	"redis-sentinel://:§@127.0.0.1:1,127.0.0.1:2", "redis-sentinel://:§@127.0.0.1:1/mymaster/x", "redis-sentinel://bee:§@127.0.0.1:1/mymaster",
	"redis+cluster://:§@127.0.0.1:1,127.0.0.1:2", "redis+cluster://bee:§@127.0.0.1:1/3", "rediss+cluster://bee:§@127.0.0.1:1?shards=x",
	"sqlite://u:§@h/x", "sqlite://§@h/x", "sqlite://:§@/x", "sqlite://u:§@h/x.db?mode=ro", "sqlite:x.db?password=§", "memory://u:§@h", "memory:u:§@h",
	"postgres://u:§@h/db", "postgresql://§@h", "http://bee:§@h", "nats://bee:§@h:1", "mysql:bee:§@tcp(h)/x",
}

// between is what may stand in a secret, raw or with an escape.
var between = []string{"", "/", "?", "#", "@", ":", "%zz", "%2F", "%40", "%", " ", "[", "]", "\\", "\t", "\n", "\x00", ",", "&", "=", ";", "\"", "é", "://"}

// URLs returns the URLs: each shape with each kind of secret.
func URLs() []string {
	urls := make([]string, 0, len(shapes)*len(between))
	for _, s := range shapes {
		for _, b := range between {
			before, after, _ := strings.Cut(s, "§")
			switch {
			case b == "@" && !strings.Contains(after, "@"): // what follows it is a host
				continue
			case b == ":" && strings.HasSuffix(before, "//"), b == "://" && before == "": // what precedes it is a user, or a scheme
				continue
			}
			urls = append(urls, With(s, b))
		}
	}
	return urls
}

// Shapes returns the shapes, for fuzz tests: see [With].
func Shapes() []string { return shapes }

// With returns a shape with a secret that has something in the middle.
func With(shape, middle string) string { return strings.ReplaceAll(shape, "§", first+middle+second) }

// Told returns the part of the secret that a text tells; "" if it tells none.
func Told(text string) string {
	for _, half := range []string{first, second} {
		if strings.Contains(strings.ToLower(text), strings.ToLower(half)) {
			return half
		}
	}
	return ""
}
