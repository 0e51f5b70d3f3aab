package redisstore

import (
	"cmp"
	"crypto/sha1" // the server names scripts by it
	"embed"
	"encoding/hex"
	"fmt"
	"path"
	"strings"

	"github.com/waggleq/waggle/redisstore/internal/layout"
)

//go:embed lua/*.lua lua/include/*.lua
var luaFiles embed.FS

// script is one file of lua/, with its fragments and what its accessors stand for put in.
type script struct {
	name  string
	text  string
	sha   string
	reads bool     // it writes nothing
	keys  []string // the fixed keys, in order, as its header names them: "task", "held/WORKER"
	rest  []string // the keys of one group of those that follow, repeated as often as the call needs
}

// The scripts, by what they do. Their headers tell keys, arguments and results.
var (
	openScript      = loadScript("open")
	internScript    = loadScript("intern")
	enqueueScript   = loadScript("enqueue")
	fetchScript     = loadScript("fetch")
	settleScript    = loadScript("settle")
	getScript       = loadScript("get")
	commitScript    = loadScript("commit")
	forgetScript    = loadScript("forget")
	promoteScript   = loadScript("promote")
	pruneScript     = loadScript("prune")
	registerScript  = loadScript("register")
	beatScript      = loadScript("beat")
	directScript    = loadScript("direct")
	heldScript      = loadScript("held")
	reapScript      = loadScript("reap")
	buryScript      = loadScript("bury")
	setQueueScript  = loadScript("setqueue")
	dropQueueScript = loadScript("dropqueue")
	signalScript    = loadScript("signal")
	readyScript     = loadScript("ready")
	shareScript     = loadScript("share")
	sweepScript     = loadScript("sweep")
	lendLookScript  = loadScript("lend_look")
	lendShareScript = loadScript("lend_share")
	lendTakeScript  = loadScript("lend_take")
	takeScript      = loadScript("intake_take")
	dropScript      = loadScript("intake_drop")

	planAdvanceScript = loadScript("plan_advance")
	planSentScript    = loadScript("plan_sent")
	planSignalScript  = loadScript("plan_signal")
	planGetScript     = loadScript("plan_get")
	planDropScript    = loadScript("plan_drop")
)

// scriptNames tells the scripts by their SHA-1.
var scriptNames = map[string]string{}

// loadScript reads a script and its header. A file that is missing or malformed is a mistake in this package, found by
// any test, hence the panic.
func loadScript(name string) *script {
	s := &script{name: name, text: readLua(name + ".lua")}
	var err error
	if s.text, err = layout.Expand(expandIncludes(s.text)); err != nil {
		panic(fmt.Sprintf("redisstore: %s.lua: %v", name, err))
	}
	s.reads = strings.HasPrefix(s.text, "#!lua flags=no-writes")
	for line := range strings.Lines(s.text) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "-- KEYS each "); ok {
			_, keys, _ := strings.Cut(rest, ": ")
			s.rest = append(s.rest, strings.Fields(keys)...)
		} else if rest, ok := strings.CutPrefix(line, "-- KEYS "); ok {
			s.keys = strings.Fields(rest)
		}
		if strings.HasPrefix(line, "-- ARGV") {
			break
		}
	}
	sum := sha1.Sum([]byte(s.text))
	s.sha = hex.EncodeToString(sum[:])
	scriptNames[s.sha] = name
	return s
}

func expandIncludes(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "--@include "); ok {
			b.WriteString(readLua(path.Join("include", name+".lua")))
			continue
		}
		b.WriteString(line)
	}
	return b.String()
}

func readLua(name string) string {
	b, err := luaFiles.ReadFile(path.Join("lua", name))
	if err != nil {
		panic(fmt.Sprintf("redisstore: %v", err))
	}
	return string(b)
}

// ScriptName returns the name of the script with that SHA-1, as the server's slow log and statistics show it; the SHA-1
// itself if it is none of this package's.
func ScriptName(sha string) string {
	return cmp.Or(scriptNames[sha], sha)
}
