package workflow

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/waggleq/waggle/driver"
)

// NewsAtOnce is how many news one step of a workflow's plan deals with at most.
const NewsAtOnce = 1000

// Parse reads a graph from JSON. A field that a graph does not have is an error, as it is a typing mistake.
func Parse(data []byte, g *Graph) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	err := d.Decode(g)
	if bad, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && bad.Field == "" {
		return driver.Invalidf(`this is not a workflow but a JSON %s: write an object with "id" and "steps"`, bad.Value)
	}
	if err != nil {
		return driver.Invalidf("this is not a workflow: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return driver.Invalidf("this is not a workflow: there is more after its end")
	}
	return nil
}

// Clone returns a copy whose steps can be changed.
func (g *Graph) Clone() *Graph {
	c := *g
	c.Steps = slices.Clone(g.Steps)
	for i := range c.Steps {
		c.Steps[i].After, c.Steps[i].Before = slices.Clone(c.Steps[i].After), slices.Clone(c.Steps[i].Before)
	}
	return &c
}

// StepName is the name of the step that a label stands for.
func StepName(label string) string {
	name, _, _ := strings.Cut(label, ":")
	return name
}

// CancelTasks cancels the tasks of a workflow. Those that have ended meanwhile, or are gone, are none.
func CancelTasks(ctx context.Context, store driver.Store, ids []string) error {
	for some := range slices.Chunk(ids, driver.MaxApply) {
		if _, err := store.Apply(ctx, driver.Change{Op: driver.OpCancel, IDs: some}); err != nil {
			return err
		}
	}
	return nil
}
