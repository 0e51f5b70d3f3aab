package execwork

import (
	"bytes"
	"os"
	"strconv"
)

// parents returns the parent of every process of this machine that is seen.
func parents() map[int]int {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil // without it groups must do
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1) // what was read counts
	list := make(map[int]int)
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue // it has ended
		}
		// The name, in brackets, may hold anything; state and parent follow it.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) < 2 {
			continue
		}
		if parent, err := strconv.Atoi(string(fields[1])); err == nil {
			list[pid] = parent
		}
	}
	return list
}

func childrenOf(pid int) []int {
	var list []int
	for child, parent := range parents() {
		if parent == pid {
			list = append(list, child)
		}
	}
	return list
}

// below returns the descendants of a process.
func below(pid int) []int {
	children := make(map[int][]int)
	for child, parent := range parents() {
		children[parent] = append(children[parent], child)
	}
	list := children[pid]
	for i := 0; i < len(list); i++ {
		list = append(list, children[list[i]]...)
	}
	return list
}
