package workflow

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"sync"

	"github.com/waggleq/waggle/driver"
)

// cacheSteps is how many steps the graphs in a cache have together, at most: some tens of megabytes.
const cacheSteps = 50_000

// Cache keeps the graphs of workflows that run, read and linked, so that a step of a workflow of thousands of steps costs no
// more than one of ten. A graph in it is known by what it says: a plan names the sum of its graph. It may be used
// concurrently; a nil cache keeps nothing. What is in it is never changed.
type Cache struct {
	mu     sync.Mutex
	byName map[string]*cached
	steps  int
	clock  uint64
}

type cached struct {
	sum   string
	graph *Graph
	links *links
	used  uint64
}

// NewCache returns an empty cache.
func NewCache() *Cache { return &Cache{byName: map[string]*cached{}} }

// Parts returns the parts of a workflow's plan that [Advance] will want to see in any case, as far as is known before the plan
// was read.
func (c *Cache) Parts(ref driver.PlanRef) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byName[ref.Name] != nil {
		return nil
	}
	return []string{partGraph}
}

// get returns the graph of a workflow, if it is the one with that sum.
func (c *Cache) get(name, sum string) *cached {
	if c == nil || sum == "" {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.byName[name]
	if g == nil || g.sum != sum {
		return nil
	}
	c.clock++
	g.used = c.clock
	return g
}

// put keeps a graph, and forgets those that were used the longest ago.
func (c *Cache) put(name string, g *cached) {
	if c == nil || g.sum == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(name)
	c.clock++
	g.used = c.clock
	c.byName[name] = g
	c.steps += len(g.graph.Steps)
	for c.steps > cacheSteps && len(c.byName) > 1 {
		oldest := ""
		for n, g := range c.byName {
			if oldest == "" || g.used < c.byName[oldest].used {
				oldest = n
			}
		}
		c.remove(oldest)
	}
}

// drop forgets a graph: its workflow has ended.
func (c *Cache) drop(name string) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(name)
}

func (c *Cache) remove(name string) {
	if g := c.byName[name]; g != nil {
		delete(c.byName, name)
		c.steps -= len(g.graph.Steps)
	}
}

// sumOf names what a graph says.
func sumOf(graph []byte) string {
	sum := sha256.Sum256(graph)
	return hex.EncodeToString(sum[:12])
}

// graphOf returns a plan's graph from the cache or, linked, from the plan. nil: it has to be read first.
func (c *Cache) graphOf(p *driver.Plan, sum string) (*cached, error) {
	if g := c.get(p.Name, sum); g != nil {
		return g, nil
	}
	b, read := p.Parts[partGraph]
	if !read {
		return nil, nil
	}
	g := &cached{sum: sum, graph: &Graph{}}
	if err := json.Unmarshal(b, g.graph); err != nil {
		return nil, driver.Errorf(driver.ErrCorrupt, "the steps of workflow %s can't be read: %w", p.Name, err)
	}
	g.links = g.graph.link()
	if sum != "" && sum == sumOf(b) {
		c.put(p.Name, g)
	}
	return g, nil
}
