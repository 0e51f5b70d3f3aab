package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/waggleq/waggle/internal/redisserver"
)

// machine describes what it was measured on, without names.
type machine struct {
	CPU     string  `json:"cpu"`
	Cores   int     `json:"cores"`
	Memory  float64 `json:"memory_gib"`
	System  string  `json:"system"`
	FsyncMS float64 `json:"fsync_ms"` // median of writing 4 KiB to the end of a file and fsync
}

func describeMachine(dir string) (machine, error) {
	m := machine{CPU: "unknown", Cores: runtime.NumCPU(), System: runtime.GOOS + "/" + runtime.GOARCH}
	if name := lineAfter("/proc/cpuinfo", "model name"); name != "" {
		m.CPU = name
	}
	if kib, err := strconv.ParseFloat(strings.TrimSuffix(lineAfter("/proc/meminfo", "MemTotal"), " kB"), 64); err == nil {
		m.Memory = kib / (1 << 20)
	}
	if os := strings.Trim(strings.TrimPrefix(lineAfter("/etc/os-release", "PRETTY_NAME"), "="), `"`); os != "" {
		m.System = os + ", " + m.System
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		kernel, _, _ := strings.Cut(strings.TrimSpace(string(b)), "-")
		m.System += ", kernel " + kernel
	}
	fsync, err := fsyncTime(dir)
	m.FsyncMS = float64(fsync.Microseconds()) / 1000
	return m, err
}

// lineAfter returns the rest of the first line of a file that begins with prefix, without the colon; "" if there is
// none.
func lineAfter(path, prefix string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if rest, found := strings.CutPrefix(line, prefix); found {
			return strings.Trim(rest, ": \t\n")
		}
	}
	return ""
}

func fsyncTime(dir string) (time.Duration, error) {
	f, err := os.Create(filepath.Join(dir, "fsync"))
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	block := make([]byte, 4096)
	var times []float64
	for range 200 {
		before := time.Now()
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		times = append(times, float64(time.Since(before)))
	}
	return time.Duration(median(times)), nil
}

// versions returns the versions of everything that takes part.
func versions(ctx context.Context, specs []*spec) (map[string]string, error) {
	found := map[string]string{"Go": strings.TrimPrefix(runtime.Version(), "go")}
	modules := map[string]string{}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			modules[m.Path] = m.Version
		}
	}
	for _, s := range specs {
		var err error
		switch {
		case s.store == redisStore:
			var bin redisserver.Binary
			bin, err = redisserver.Find(ctx, redisserver.Redis)
			found["Redis"] = bin.Version
		case s.store == postgresStore:
			found["PostgreSQL"], err = postgresVersion()
		}
		if err != nil {
			return nil, err
		}
		if s.open == nil {
			if err := nodeVersions(s, found); err != nil {
				return nil, err
			}
		} else if v := modules[s.module]; v != "" && !s.ours {
			found[s.product()] = strings.TrimPrefix(v, "v")
		}
	}
	return found, nil
}

func postgresVersion() (string, error) {
	dir, err := postgresDir()
	if err != nil {
		return "", err
	}
	out, err := exec.Command(filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return "", err
	}
	fields := strings.Fields(string(out)) // postgres (PostgreSQL) 15.14 (Debian …)
	if len(fields) < 3 {
		return "", fmt.Errorf("postgres --version says %q", out)
	}
	return fields[2], nil
}

// nodeVersions adds Node.js's version and that of the packages of a Node.js program.
func nodeVersions(s *spec, found map[string]string) error {
	node, err := exec.Command("node", "--version").Output()
	if err != nil {
		return fmt.Errorf("no Node.js was found (%w): install it, on Debian and Ubuntu with: apt-get install nodejs npm", err)
	}
	found["Node.js"] = strings.TrimPrefix(strings.TrimSpace(string(node)), "v")
	out, err := exec.Command("node", "-p", fmt.Sprintf("require('./bullmq/node_modules/%s/package.json').version", s.module)).Output()
	if err != nil {
		return fmt.Errorf("the package %s was not found (%w): run npm install --no-save in bench/bullmq", s.module, err)
	}
	found[s.product()] = strings.TrimSpace(string(out))
	return nil
}
