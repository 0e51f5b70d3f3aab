package redisstore

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/waggleq/waggle/driver"
)

// Plans implements driver.Planner. Each shard has its plans in a sorted set by kind and name.
func (s *Store) Plans(ctx context.Context, q driver.PlanQuery, page driver.Page) (*driver.PlanPage, error) {
	if s.closed() {
		return nil, driver.ErrClosed
	}
	size, err := driver.CheckPage(page)
	if err != nil {
		return nil, err
	}
	if err := driver.CheckPlanQuery(&q); err != nil {
		return nil, err
	}
	incarnation, _, _ := s.hub().known.versions()
	cursor, after := "plans:"+incarnation+":", ""
	if page.Cursor != "" {
		var ok bool
		if after, ok = strings.CutPrefix(page.Cursor, cursor); !ok {
			return nil, driver.Invalidf("the cursor %q is not one that this store gave out for a list like this", driver.CutText(page.Cursor, 64))
		}
	}
	found := make([][]*planRecord, len(s.shards))
	err = s.eachShard(ctx, func(ctx context.Context, sh *shard) (err error) {
		found[sh.number], err = s.listPlans(ctx, sh, &q, after, size+1)
		return err
	}, nil)
	if err != nil {
		return nil, err
	}
	all := slices.SortedFunc(slices.Values(slices.Concat(found...)), func(a, b *planRecord) int { return cmp.Compare(a.Name, b.Name) })
	res := &driver.PlanPage{}
	if len(all) > size {
		all = all[:size]
		res.Next = cursor + all[size-1].Name
	}
	return res, s.addBodies(ctx, all, res)
}

// listPlans returns the first plans of a shard that match, at most limit.
func (s *Store) listPlans(ctx context.Context, sh *shard, q *driver.PlanQuery, after string, limit int) ([]*planRecord, error) {
	var list []*planRecord
	from := "[" + q.Kind + "/" + q.Prefix
	if after != "" && after >= q.Prefix {
		from = "(" + q.Kind + "/" + after
	}
	to := "(" + q.Kind + "0" // the character behind the slash
	for len(list) < limit {
		members, err := s.planNames(ctx, sh, from, to, limit)
		if err != nil || len(members) == 0 {
			return list, err
		}
		from = "(" + members[len(members)-1]
		heads, err := s.hashFields(ctx, sh, "plan", members)
		if err != nil {
			return nil, err
		}
		for i, m := range members {
			ref, _ := driver.ParsePlanRef(m)
			if !strings.HasPrefix(ref.Name, q.Prefix) {
				return list, nil
			}
			h, err := parsePlanRecord(ref, heads[i])
			if err != nil && heads[i] == "" {
				continue // removed meanwhile
			}
			if err != nil {
				return nil, err
			}
			if q.Match(&h.Plan) {
				list = append(list, h)
			}
		}
		if len(members) < limit {
			return list, nil
		}
	}
	return list, nil
}

func (s *Store) planNames(ctx context.Context, sh *shard, from, to string, limit int) ([]string, error) {
	ctx, cancel := s.bounded(ctx, s.timeout)
	defer cancel()
	cmd := s.control.B().Zrangebylex().Key(sh.key("planlist")).Min(from).Max(to).Limit(0, int64(limit)).Build()
	list, err := s.control.Do(ctx, cmd).AsStrSlice()
	return list, s.ended(ctx, err)
}

// addBodies adds plans to a page, with their bodies.
func (s *Store) addBodies(ctx context.Context, all []*planRecord, res *driver.PlanPage) error {
	byShard := make([][]int, len(s.shards))
	for i, h := range all {
		res.Plans = append(res.Plans, &h.Plan)
		n := s.shardOfPlan(h.PlanRef).number
		byShard[n] = append(byShard[n], i)
	}
	return s.eachShard(ctx, func(ctx context.Context, sh *shard) error {
		for chunk := range slices.Chunk(byShard[sh.number], planChunk) {
			names := make([]string, len(chunk))
			for k, i := range chunk {
				names[k] = all[i].PlanRef.String()
			}
			bodies, err := s.hashFields(ctx, sh, "planbody", names)
			if err != nil {
				return err
			}
			for k, i := range chunk {
				res.Plans[i].Body = []byte(bodies[k])
			}
		}
		return nil
	}, func(sh *shard) bool { return len(byShard[sh.number]) > 0 })
}
