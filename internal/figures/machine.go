package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"zombiezen.com/go/sqlite"
)

// machine describes what it was measured on, without names.
type machine struct {
	CPU     string  `json:"cpu"`
	Cores   int     `json:"cores"`
	Memory  float64 `json:"memory_gib"`
	System  string  `json:"system"`
	FsyncMS float64 `json:"fsync_ms"` // median of writing 4 KiB to the end of a file and fsync
	Load    float64 `json:"load"`     // average of the last minute before the start
	Go      string  `json:"go"`
	SQLite  string  `json:"sqlite"`
	Driver  string  `json:"sqlite_module"`
}

// text describes the hardware and the system.
func (m *machine) text() string {
	return fmt.Sprintf("%d cores (%s), %.0f GiB of memory, %s", m.Cores, m.CPU, m.Memory, m.System)
}

// alone says whether the machine had something else to do.
func (m *machine) alone() string {
	if m.Load > float64(m.Cores)/2 {
		return fmt.Sprintf("It was not quiet: the load average before the start was %s. These figures are not for the record.", number(m.Load))
	}
	return "It had nothing else to do."
}

func describeMachine(dir string) (machine, error) {
	m := machine{
		CPU: "unknown", Cores: runtime.NumCPU(), System: runtime.GOOS + "/" + runtime.GOARCH,
		Go: strings.TrimPrefix(runtime.Version(), "go"), SQLite: sqlite.Version,
	}
	if name := field("/proc/cpuinfo", "model name"); name != "" {
		m.CPU = name
	}
	if kib, err := strconv.ParseFloat(strings.TrimSuffix(field("/proc/meminfo", "MemTotal"), " kB"), 64); err == nil {
		m.Memory = kib / (1 << 20)
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		kernel, _, _ := strings.Cut(strings.TrimSpace(string(b)), "-")
		m.System += ", kernel " + kernel
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		first, _, _ := strings.Cut(string(b), " ")
		m.Load, _ = strconv.ParseFloat(first, 64) // 0: unknown
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if dep.Path == "zombiezen.com/go/sqlite" || dep.Path == "modernc.org/sqlite" {
				m.Driver = strings.TrimPrefix(m.Driver+", "+dep.Path+" "+dep.Version, ", ")
			}
		}
	}
	fsync, err := fsyncTime(dir)
	m.FsyncMS = milliseconds(fsync)
	return m, err
}

// field returns what follows name and a colon on the first line of a file that begins with name; "" if there is none.
func field(path, name string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if rest, found := strings.CutPrefix(line, name); found {
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
	return time.Duration(percentile(times, 0.5)), nil
}

// peakMemory returns the most memory that a process had resident at any time, in MiB. It needs Linux.
func peakMemory(pid int) (float64, error) {
	text := field(fmt.Sprintf("/proc/%d/status", pid), "VmHWM")
	kib, err := strconv.ParseFloat(strings.TrimSuffix(text, " kB"), 64)
	if err != nil {
		return 0, fmt.Errorf("the memory of process %d can't be read: %w", pid, err)
	}
	return kib / 1024, nil
}

// cpuTime returns the processor time that the threads of a process have used. It needs Linux.
func cpuTime(pid int) (time.Duration, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, name := range threads {
		b, err := os.ReadFile(name)
		if err != nil {
			return 0, err
		}
		used, _, _ := strings.Cut(string(b), " ")
		ns, err := strconv.ParseInt(used, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		sum += time.Duration(ns)
	}
	if len(threads) == 0 {
		return 0, fmt.Errorf("the processor time of process %d can't be read", pid)
	}
	return sum, nil
}
