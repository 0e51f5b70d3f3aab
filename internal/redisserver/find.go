package redisserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
)

// Flavour names a server product.
type Flavour string

// The flavours Waggle supports, from these versions on: Redis 7.0, Valkey 8.0.
const (
	Redis  Flavour = "redis"
	Valkey Flavour = "valkey"
)

// Flavours returns all supported flavours, for tests that run on each.
func Flavours() []Flavour { return []Flavour{Redis, Valkey} }

// ErrNotFound is wrapped by the errors of Find. Its message comes with the command that installs the server.
var ErrNotFound = errors.New("server binary not found")

// Binary is a server program on this machine.
type Binary struct {
	Flavour Flavour
	// Path is absolute and not resolved further: the programs look at the name they were called by.
	Path string
	// Version is as the program prints it, such as "7.0.15".
	Version string
}

var product = map[Flavour]struct {
	program, banner, install string
	major                    int
}{
	Redis: {"redis-server", "Redis", "apt-get install redis-server", 7},
	Valkey: {"valkey-server", "Valkey", "apt-get install valkey-server (on Debian 12: apt-get install -t bookworm-backports valkey-server, " +
		"or unpack the packages valkey-server and valkey-tools with dpkg -x into the cache directory waggle/valkey)", 8},
}

// versionLine matches what both products print for --version, such as "Redis server v=7.0.15 sha=…".
var versionLine = regexp.MustCompile(`^(\w+) server v=((\d+)\.[0-9.]+)`)

// Find returns the server program of a flavour: the one on PATH, else the one unpacked under
// $XDG_CACHE_HOME/waggle/valkey/usr/bin (XDG_CACHE_HOME defaults to ~/.cache). A program that is too old, or is another
// product under that name, does not count. The error wraps ErrNotFound and says what to install.
func Find(ctx context.Context, f Flavour) (Binary, error) {
	p, ok := product[f]
	if !ok {
		return Binary{}, fmt.Errorf("redisserver: unknown flavour %q: use %q or %q", f, Redis, Valkey)
	}
	var refused error
	for _, path := range candidates(p.program) {
		version, err := inspect(ctx, path, p.banner, p.major)
		if err == nil {
			return Binary{Flavour: f, Path: path, Version: version}, nil
		}
		refused = errors.Join(refused, err)
	}
	err := fmt.Errorf("redisserver: %s (version %d or later): %w: install it with: %s", p.program, p.major, ErrNotFound, p.install)
	return Binary{}, errors.Join(err, refused)
}

func candidates(program string) []string {
	var paths []string
	if path, err := exec.LookPath(program); err == nil {
		if abs, err := filepath.Abs(path); err == nil {
			paths = append(paths, abs)
		}
	}
	cache := os.Getenv("XDG_CACHE_HOME")
	if home, err := os.UserHomeDir(); err == nil {
		cache = cmp.Or(cache, filepath.Join(home, ".cache"))
	}
	unpacked := filepath.Join(cache, "waggle", "valkey", "usr", "bin", program)
	if info, err := os.Stat(unpacked); cache != "" && err == nil && info.Mode().IsRegular() {
		paths = append(paths, unpacked)
	}
	return paths
}

// inspect returns the version of the program at path if it is the wanted product and recent enough.
func inspect(ctx context.Context, path, banner string, major int) (string, error) {
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", path, err)
	}
	m := versionLine.FindSubmatch(out)
	if m == nil || string(m[1]) != banner {
		return "", fmt.Errorf("%s is not %s: it says %.80q", path, banner, out)
	}
	if got, err := strconv.Atoi(string(m[3])); err != nil || got < major {
		return "", fmt.Errorf("%s is version %s, too old", path, m[2])
	}
	return string(m[2]), nil
}
