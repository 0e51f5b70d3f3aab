package redisstore

import (
	"context"
	"strconv"

	"github.com/waggleq/waggle/driver"
)

// forgetChunk bounds the tasks that one script deletes, so that none takes long.
const forgetChunk = 500

// fellows are tasks to be deleted that stand in the same index and counters.
type fellows struct {
	state   byte
	pair    *pair
	targets []*affected
}

// forgettable reports whether forget.lua can delete a task: most, but not those that own a unique key, expire, have a key,
// or have to be told to a plan, and none with a damaged record.
func (m *mover) forgettable(e *entry, p *pair) bool {
	r := &e.run
	if p == nil || e.err != nil || e.own != "" || r.lapsed(m.now) {
		return false
	}
	return stateOf[r.state].Ended() || r.state != letterActive && r.flags&(flagExpires|flagPlan|flagKeyed) == 0 && !(r.state == letterAvailable && m.flows(e, p))
}

// forgetTasks deletes tasks and returns those that it left alone: they have changed since they were read.
func (s *Store) forgetTasks(ctx context.Context, sh *shard, groups []*fellows) (again []*affected, err error) {
	if len(groups) == 0 {
		return nil, nil
	}
	keys := sh.keysOf(forgetScript, "")
	args := append(s.head(sh, "", ""), strconv.Itoa(len(groups)))
	var sent []*affected
	for _, g := range groups {
		keys, args = g.encode(sh, keys, args)
		sent = append(sent, g.targets...)
	}
	reply, err := s.call(ctx, s.data, sh, forgetScript, keys, args)
	if err != nil {
		return nil, err
	}
	letters, err := reply.ToString()
	if err != nil || len(letters) != len(sent) {
		return nil, driver.Errorf(driver.ErrUnavailable, "%s gave an unexpected reply", s.where)
	}
	for i, t := range sent {
		if letters[i] == '0' {
			again = append(again, t)
		}
	}
	return again, nil
}

// encode appends what the script wants of a group.
func (g *fellows) encode(sh *shard, keys, args []string) (k, a []string) {
	p, letter := g.pair, string(g.state)
	command, index, vacant, counter, bytes := "ZREM", p.due, p.due, "", ""
	switch g.state {
	case letterAvailable:
		index, vacant, counter = p.back, p.line, letter+p.digits
	case letterScheduled, letterRetryable:
	case letterPending:
		command, index, vacant = "SREM", sh.key("hold"), sh.key("hold")
	default:
		command, index, vacant = "", p.keptOfState[g.state], p.keptOfState[g.state]
		counter, bytes = countKept+letter+p.queue, countKeptBytes+letter+p.queue
	}
	args = append(args, letter, p.digits, p.subject, command, counter, bytes, strconv.Itoa(len(g.targets)))
	for _, t := range g.targets {
		args = append(args, t.entry.id, t.entry.rawRun, strconv.Itoa(t.entry.run.size))
	}
	return append(keys, index, vacant), args
}
