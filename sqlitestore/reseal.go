package sqlitestore

import (
	"context"
	"slices"
	"strings"

	"zombiezen.com/go/sqlite"
)

// resealed are the tables whose damaged rows a repair takes as they are, once what can be derived has been: there is nothing
// better to go on with than a queue's settings as they can be read. What is stored of plans stays marked: nothing tells
// what was right, and a workflow must not go on from a state that may be wrong.
var resealed = []string{"store", "queue", "lane", "uniq", "worker", "keyed", "flow"}

// reseal has the writer make all that is damaged as good as it can, in a transaction beside its usual ones, which can't
// begin while the store's own row is damaged. Then it loads all anew: nothing of this was told by events.
func (s *Store) reseal(ctx context.Context, defects []defect) error {
	if !slices.ContainsFunc(defects, func(d defect) bool { return d.Kind == "damaged-row" }) {
		s.queue.call(func(w *writer) { w.st = nil })
		return nil
	}
	result := make(chan error, 1)
	if !s.queue.call(func(w *writer) { result <- w.reseal(ctx) }) {
		return errClosed
	}
	return <-result
}

func (w *writer) reseal(ctx context.Context) error {
	err := retryBusy(ctx, func() error { return w.c.stmt("begin").exec() })
	if err != nil {
		return err
	}
	defer func() {
		w.st = nil
		if !w.c.db.AutocommitEnabled() {
			_ = w.c.stmt("rollback").exec() // err tells more
		}
	}()
	for _, step := range []struct {
		table, do string
	}{
		// What can't be read at all begins anew.
		{"queue", "UPDATE queue SET config = NULL WHERE NOT json_valid(config)"},
		{"worker", "UPDATE worker SET info = json_object('id', id) WHERE NOT json_valid(info)"},
		// Nobody can renew the lease of a worker whose row is damaged: its tasks go to others now.
		{"worker", "UPDATE worker SET life = 'lost', lease_end = 0 WHERE life <> 'gone' AND %s"},
		{"event", "DELETE FROM event WHERE %s"},
		{"share", "DELETE FROM share WHERE %s"},
		{"keyed", "UPDATE keyed SET held = '{}' WHERE NOT json_valid(held)"},
		{"keyed", "UPDATE keyed SET arrivals = '{}' WHERE NOT json_valid(arrivals)"},
	} {
		if err := w.c.sealWhere(step.table, step.do); err != nil {
			return err
		}
	}
	for _, table := range resealed {
		if err := w.c.sealWhere(table, "UPDATE "+table+" SET sum = rowsum(%c) WHERE %s"); err != nil {
			return err
		}
	}
	return w.c.stmt("commit").exec()
}

// sealWhere runs a statement with %s for the rows of a table that are damaged, and %c for the columns of its checksum.
func (c *conn) sealWhere(table, text string) error {
	var columns []string
	err := c.stmt("audit_sums_" + table).prepared(func(s *sqlite.Stmt) {
		for i := range s.ColumnCount() - 1 {
			columns = append(columns, s.ColumnName(i))
		}
	})
	if err != nil {
		return err
	}
	list := strings.Join(columns, ", ")
	return c.run(strings.NewReplacer("%c", list, "%s", "sum IS NOT rowsum("+list+")").Replace(text))
}
