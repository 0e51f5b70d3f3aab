package sqlitestore

import (
	"encoding/json"
	"slices"

	"zombiezen.com/go/sqlite"
)

// key returns a key of a queue, made if needed; it is stored once it is touched.
func (t *tx) key(q *queue, name string) (*key, error) {
	if k := q.share.keys[name]; k != nil {
		return k, nil
	}
	k := newKey(q, name)
	_, err := t.stmt("key_get").ints(q.no).text(name).row(func(s *sqlite.Stmt) error {
		k.damaged = k.scan(s, 0) != nil || !intact(s, 0, keyedColumns)
		return nil
	})
	if err == nil && k.no == 0 {
		if k.no, err = t.nextKey(); err != nil {
			return nil, err
		}
		t.st.nextKey++
	} else if err == nil {
		err = t.loadFlows(k)
	}
	if err != nil {
		return nil, err
	}
	q.know(k)
	return k, nil
}

func newKey(q *queue, name string) *key {
	return &key{name: name, queue: q, held: map[int64]int64{}, arrivals: arrivals{}}
}

// know keeps a key in memory.
func (q *queue) know(k *key) {
	if q.share.keys == nil {
		q.share.keys = make(map[string]*key)
	}
	q.share.keys[k.name] = k
}

// scan reads the columns of a row of table keyed, from one on.
func (k *key) scan(s *sqlite.Stmt, from int) error {
	k.stored = true
	k.no, k.tag, k.waiting = s.ColumnInt64(from), s.ColumnInt64(from+3), s.ColumnInt64(from+4)
	return k.decode(s.ColumnText(from+8), s.ColumnText(from+9))
}

// flowOf makes a flow of a row of table flow. Its savedParked is left to the caller.
func (t *tx) flowOf(k *key, s *sqlite.Stmt) *flow {
	return &flow{key: k, lane: t.laneNo(s.ColumnInt64(1)), prio: s.ColumnInt64(2), n: s.ColumnInt64(3), rank: s.ColumnInt64(5), ord: s.ColumnInt64(6),
		parked: s.ColumnBool(7), opens: s.ColumnInt64(8), stored: true}
}

// nothing is what most keys hold, and their rates.
const nothing = "{}"

func (k *key) decode(held, rates string) error {
	if held != nothing {
		if err := json.Unmarshal([]byte(held), &k.held); err != nil {
			return corruptf("what key %q holds can't be read: %v", k.name, err)
		}
	}
	if rates != nothing {
		if err := json.Unmarshal([]byte(rates), &k.arrivals); err != nil {
			return corruptf("the rates of key %q can't be read: %v", k.name, err)
		}
	}
	return nil
}

func (t *tx) loadFlows(k *key) error {
	err := t.stmt("flow_get").ints(k.no).rows(func(s *sqlite.Stmt) error {
		k.damaged = k.damaged || !intact(s, 0, flowColumns)
		k.flows = append(k.flows, t.flowOf(k, s))
		return nil
	})
	if err == nil && k.damaged {
		err = t.deriveFlows(k)
	}
	for _, f := range k.flows {
		if f.parked {
			f.savedParked = f.n
		}
	}
	return err
}

// deriveFlows makes the flows of a key that is damaged of the tasks that wait: others share their lanes' counts.
func (t *tx) deriveFlows(k *key) error {
	for _, f := range k.flows {
		f.n = 0
	}
	err := t.stmt("queued_flows").ints(k.no).rows(func(s *sqlite.Stmt) error {
		l, prio := t.laneNo(s.ColumnInt64(0)), s.ColumnInt64(1)
		i := slices.IndexFunc(k.flows, func(f *flow) bool { return f.lane == l && f.prio == prio })
		if i < 0 {
			i = len(k.flows)
			k.flows = append(k.flows, &flow{key: k, lane: l, prio: prio})
		}
		k.flows[i].n = s.ColumnInt64(2)
		return nil
	})
	for _, f := range k.flows {
		if err != nil || f.n == 0 {
			continue
		}
		_, err = t.stmt("queued_head").ints(f.lane.no, f.prio, k.no).row(func(s *sqlite.Stmt) error {
			f.rank, f.ord = s.ColumnInt64(0), s.ColumnInt64(1)
			return nil
		})
	}
	return err
}
