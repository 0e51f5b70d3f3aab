package workflow

import (
	"fmt"
	"strings"
)

// Mermaid draws a workflow as a Mermaid flowchart.
func Mermaid(w *Info) string {
	var b strings.Builder
	b.WriteString("flowchart TD\n")
	number := map[string]int{}
	for i, s := range w.Steps {
		number[s.Name] = i
		fmt.Fprintf(&b, "  s%d[\"%s<br/>%s\"]:::%s\n", i, s.Name, s.State, s.State)
	}
	for i, s := range w.Steps {
		for _, on := range s.After {
			fmt.Fprintf(&b, "  s%d --> s%d\n", number[on], i)
		}
	}
	for _, c := range []struct{ state, style string }{
		{"pending", "fill:#eee,stroke:#999,color:#333"}, {"running", "fill:#cfe8ff,stroke:#2a6fb0,color:#123"},
		{"waiting", "fill:#fff3c4,stroke:#b08a00,color:#321"}, {"completed", "fill:#d3f2d3,stroke:#2b8a3e,color:#132"},
		{"failed", "fill:#ffd6d6,stroke:#c92a2a,color:#311"}, {"cancelled", "fill:#eadcf7,stroke:#7048a8,color:#213"},
		{"skipped", "fill:#f5f5f5,stroke:#bbb,color:#777"}, {"compensated", "fill:#ffe3c2,stroke:#c06a00,color:#321"},
	} {
		fmt.Fprintf(&b, "  classDef %s %s\n", c.state, c.style)
	}
	return b.String()
}

// Layers orders the steps for a drawing: each step is a layer below the lowest of those it waits for.
func Layers(w *Info) [][]*StepInfo {
	byName := map[string]*StepInfo{}
	for i := range w.Steps {
		byName[w.Steps[i].Name] = &w.Steps[i]
	}
	depth := map[string]int{}
	waits := map[string]int{}
	then := map[string][]string{}
	var free []string
	for i := range w.Steps {
		s := &w.Steps[i]
		waits[s.Name] = len(s.After)
		if len(s.After) == 0 {
			free = append(free, s.Name)
		}
		for _, on := range s.After {
			then[on] = append(then[on], s.Name)
		}
	}
	for ; len(free) > 0; free = free[1:] {
		for _, next := range then[free[0]] {
			depth[next] = max(depth[next], depth[free[0]]+1)
			if waits[next]--; waits[next] == 0 {
				free = append(free, next)
			}
		}
	}
	var layers [][]*StepInfo
	for i := range w.Steps {
		s := &w.Steps[i]
		for len(layers) <= depth[s.Name] {
			layers = append(layers, nil)
		}
		layers[depth[s.Name]] = append(layers[depth[s.Name]], s)
	}
	return layers
}
