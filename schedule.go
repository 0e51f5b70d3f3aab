package waggle

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/schedule"
)

// Schedule says what task is to be enqueued when. The zero value of a field means its default.
type Schedule struct {
	// Name is the schedule's name, [A-Za-z0-9._:-]{1,128}.
	Name string
	// Line says when it fires: five fields as in crontab(5), six with seconds before them, @hourly, @daily, @weekly,
	// @monthly, @yearly, "@every 90s", or "@at" with times in RFC 3339.
	Line string
	// Zone is the time zone that Line is about, such as "Europe/Berlin". Default: UTC.
	Zone string
	// Type is the type of the tasks, Payload their payload as in [NewTask], but not raw bytes.
	Type    string
	Payload any
	// Options are those of the tasks. Of them ID, Delay, At, ExpiresAt, Hold, Unique and Durability can't be set.
	Options *EnqueueOptions
	// Missed says what becomes of ticks that come due while no worker runs. Default: MissedCatchUp. CatchUp is how many of
	// them fire at most, the newest; default 10.
	Missed  MissedPolicy
	CatchUp int
	// Overlap says what becomes of a tick while the task of an earlier one has not ended. Default: OverlapAllow.
	Overlap OverlapPolicy
	// Jitter, if it is not 0, delays the start of each tick's task by a part of it, the same however often it is asked.
	Jitter time.Duration
}

// Schedules are declared in a program: see [WorkerOptions].
type Schedules []Schedule

// MissedPolicy says what becomes of ticks that came due while no worker ran.
type MissedPolicy string

// The policies. A tick is missed if another has come due since, or if it is more than a minute late.
const (
	MissedSkip    MissedPolicy = schedule.MissedSkip    // missed ticks are left out
	MissedOnce    MissedPolicy = schedule.MissedOnce    // the last of them fires, for all
	MissedCatchUp MissedPolicy = schedule.MissedCatchUp // each fires
)

// OverlapPolicy says what becomes of a tick while the task of an earlier one has not ended.
type OverlapPolicy string

// The policies.
const (
	OverlapAllow   OverlapPolicy = schedule.OverlapAllow   // it fires
	OverlapSkip    OverlapPolicy = schedule.OverlapSkip    // it is left out
	OverlapReplace OverlapPolicy = schedule.OverlapReplace // that task is cancelled, and it fires
	OverlapWait    OverlapPolicy = schedule.OverlapWait    // it fires when that task has ended
)

// ScheduleInfo is a schedule as the store has it.
type ScheduleInfo struct {
	Name        string          `json:"name"`
	State       string          `json:"state"` // active, paused, ended (it has no more ticks), or damaged (it can't be read)
	Line        string          `json:"line"`
	Zone        string          `json:"tz"`
	Type        string          `json:"type"`
	Queue       string          `json:"queue,omitzero"`
	Payload     json.RawMessage `json:"payload,omitzero"`
	Missed      MissedPolicy    `json:"missed"`
	CatchUp     int             `json:"catch_up,omitzero"`
	Overlap     OverlapPolicy   `json:"overlap"`
	Jitter      time.Duration   `json:"jitter,omitzero"`
	ByCode      bool            `json:"by_code"`       // declared in a program, and not edited since
	Next        time.Time       `json:"next,omitzero"` // the next tick
	LastRun     *ScheduleRun    `json:"last_run,omitzero"`
	Skipped     *SkippedTick    `json:"skipped,omitzero"` // the newest tick that was left out
	Fired       int64           `json:"fired"`            // ticks, ever
	SkippedEver int64           `json:"skipped_ever"`     // times that ticks were left out, ever
	Created     time.Time       `json:"created"`
	Updated     time.Time       `json:"updated"`

	body *schedule.Body
	plan *driver.Plan
}

// ScheduleRun is the firing of a tick. SkippedTick says why one did not fire. ScheduleTick is a tick to come, with what a
// change of the clock does to it.
type (
	ScheduleRun  = schedule.Run
	SkippedTick  = schedule.Skip
	ScheduleTick = schedule.Tick
)

// spec checks a schedule and returns its stored form.
func (c *Client) spec(s *Schedule, now time.Time) (schedule.Spec, error) {
	v := schedule.Spec{Line: s.Line, Zone: s.Zone, Type: s.Type, Missed: string(s.Missed), CatchUp: s.CatchUp, Overlap: string(s.Overlap), Jitter: s.Jitter}.WithDefaults()
	var o EnqueueOptions
	if s.Options != nil {
		o = *s.Options
	}
	if o.ID != "" || o.Delay != 0 || !o.At.IsZero() || !o.ExpiresAt.IsZero() || o.Hold || o.Unique != nil || o.Durability != "" {
		return v, driver.Invalidf("the tasks of a schedule can't have an id, a time, a hold, a unique key or a durability level of their own")
	}
	var t driver.Task
	if err := c.fill(&t, s.Type, s.Payload, &o); err != nil {
		return v, err
	}
	if t.Encoding == EncodingRaw {
		return v, driver.Invalidf("the payload of a schedule is JSON: raw bytes can't be kept")
	}
	v.Payload, v.Queue, v.Priority, v.MaxAttempts = bytes.Clone(t.Payload), o.Queue, o.Priority, o.MaxAttempts
	v.Timeout, v.ExpiresIn, v.Headers, v.Tags = o.Timeout, o.ExpiresIn, maps.Clone(o.Headers), slices.Clone(o.Tags)
	return v, v.Check(s.Name, now)
}

// PutSchedule makes a schedule, or changes the one of that name. Ticks before now are dealt with: none fires late for a
// change. Errors: [ErrInvalid] for one that can't be or would never fire, [ErrUnsupported].
func (c *Client) PutSchedule(ctx context.Context, s Schedule) (*ScheduleInfo, error) {
	info, err := c.putSchedule(ctx, &s, false)
	return info, failed("put schedule "+s.Name, err)
}

func (c *Client) putSchedule(ctx context.Context, s *Schedule, byCode bool) (*ScheduleInfo, error) {
	now, err := c.storeNow(ctx)
	if err != nil {
		return nil, err
	}
	spec, err := c.spec(s, now)
	if err != nil {
		return nil, err
	}
	return c.editSchedule(ctx, s.Name, true, func(b *schedule.Body, now time.Time) bool {
		if byCode && (!b.ByCode && !b.Anchor.IsZero() || sameSpec(&b.Spec, &spec)) {
			return false // edited by hand, or as it should be
		}
		if b.Anchor.IsZero() || b.Line != spec.Line {
			b.Anchor = now.Truncate(time.Second)
		}
		b.Spec, b.ByCode, b.Last, b.Waiting = spec, byCode, now, nil
		return true
	})
}

func sameSpec(a, b *schedule.Spec) bool {
	x, y := schedule.Body{Spec: *a}, schedule.Body{Spec: *b}
	return bytes.Equal(x.Encode(), y.Encode())
}

func (c *Client) storeNow(ctx context.Context) (time.Time, error) {
	info, err := c.store.Info(ctx)
	if err != nil {
		return time.Time{}, err
	}
	return info.Now, nil
}

// scheduleTries is how often a change is worked out anew when the schedule changes meanwhile.
const scheduleTries = 100

// editSchedule changes the body of a schedule; edit returns false if there is nothing to change. A new one has an empty
// body without Anchor.
func (c *Client) editSchedule(ctx context.Context, name string, make bool, edit func(b *schedule.Body, now time.Time) bool) (*ScheduleInfo, error) {
	ref := schedule.Ref(name)
	if err := ref.Validate(); err != nil {
		return nil, err
	}
	for range scheduleTries {
		plans, err := c.store.GetPlans(ctx, []driver.PlanRef{ref}, driver.PlanRead{})
		if err != nil {
			return nil, err
		}
		plan, body := plans[0], &schedule.Body{}
		if plan == nil && !make {
			return nil, driver.Errorf(ErrNotFound, "there is no schedule %s", name)
		}
		if plan == nil {
			plan = &driver.Plan{PlanRef: ref}
		} else if body, err = schedule.Decode(plan.Body); err != nil {
			return nil, err
		}
		now, err := c.storeNow(ctx)
		if err != nil {
			return nil, err
		}
		if !edit(body, now) {
			return newScheduleInfo(plan, body), nil
		}
		step := driver.PlanStep{PlanRef: ref, Expect: plan.Version, State: schedule.Active, Body: body.Encode()}
		if ticks, err := body.Next(body.Last, body.Anchor, 1); err != nil {
			return nil, err
		} else if len(ticks) > 0 {
			step.Wake = ticks[0].At
		}
		if body.Paused {
			step.State, step.Wake = schedule.Paused, time.Time{}
		}
		results, err := c.store.Advance(ctx, []driver.PlanStep{step})
		if err == nil {
			err = results[0].Err
		}
		if errors.Is(err, driver.ErrConflict) {
			continue
		}
		if err != nil {
			return nil, err
		}
		plan.State, plan.Wake, plan.Version, plan.Updated = step.State, step.Wake, results[0].Version, now
		if plan.Created.IsZero() {
			plan.Created = now
		}
		return newScheduleInfo(plan, body), nil
	}
	return nil, driver.Errorf(ErrUnavailable, "the schedule changed %d times meanwhile", scheduleTries)
}

func newScheduleInfo(p *driver.Plan, b *schedule.Body) *ScheduleInfo {
	return &ScheduleInfo{
		Name: p.Name, State: p.State, Line: b.Line, Zone: b.Zone, Type: b.Type, Queue: cmp.Or(b.Queue, DefaultQueue), Payload: json.RawMessage(b.Payload),
		Missed: MissedPolicy(b.Missed), CatchUp: b.CatchUp, Overlap: OverlapPolicy(b.Overlap), Jitter: b.Jitter, ByCode: b.ByCode,
		Next: inZone(p.Wake, b.Zone), LastRun: b.LastRun, Skipped: b.Skipped, Fired: b.Fired, SkippedEver: b.Left,
		Created: p.Created, Updated: p.Updated, body: b, plan: p,
	}
}

func inZone(t time.Time, name string) time.Time {
	zone, err := schedule.Zone(name)
	if err != nil || t.IsZero() {
		return t
	}
	return t.In(zone)
}

// Schedule returns a schedule. Errors: [ErrNotFound].
func (c *Client) Schedule(ctx context.Context, name string) (*ScheduleInfo, error) {
	info, err := c.editSchedule(ctx, name, false, func(*schedule.Body, time.Time) bool { return false })
	return info, failed("get schedule "+name, err)
}

// Schedules yields all schedules, sorted by name. It ends with the first error. One that can't be read is "damaged".
func (c *Client) Schedules(ctx context.Context) iter.Seq2[*ScheduleInfo, error] {
	return func(yield func(*ScheduleInfo, error) bool) {
		for cursor := ""; ; {
			page, err := c.store.Plans(ctx, driver.PlanQuery{Kind: schedule.Kind}, driver.Page{Cursor: cursor})
			if err != nil {
				yield(nil, failed("list schedules", err))
				return
			}
			for _, p := range page.Plans {
				b, err := schedule.Decode(p.Body)
				if err != nil {
					b = &schedule.Body{}
				}
				info := newScheduleInfo(p, b)
				if err != nil {
					info.State = driver.PlanDamaged
				}
				if !yield(info, nil) {
					return
				}
			}
			if cursor = page.Next; cursor == "" {
				return
			}
		}
	}
}

// PauseSchedule has a schedule not fire until [Client.ResumeSchedule]. Errors: [ErrNotFound].
func (c *Client) PauseSchedule(ctx context.Context, name string) (*ScheduleInfo, error) {
	info, err := c.editSchedule(ctx, name, false, func(b *schedule.Body, _ time.Time) bool {
		changed := !b.Paused
		b.Paused, b.Waiting = true, nil
		return changed
	})
	return info, failed("pause schedule "+name, err)
}

// ResumeSchedule undoes PauseSchedule. Ticks of the time between are not missed: none of them fires. Errors: [ErrNotFound].
func (c *Client) ResumeSchedule(ctx context.Context, name string) (*ScheduleInfo, error) {
	info, err := c.editSchedule(ctx, name, false, func(b *schedule.Body, now time.Time) bool {
		changed := b.Paused
		b.Paused = false
		if changed {
			b.Last = now
		}
		return changed
	})
	return info, failed("resume schedule "+name, err)
}

// RunSchedule has a schedule fire once more, now, whatever its line and state. id names the firing, so that a call whose
// reply was lost can be repeated; empty: a new one. The task is enqueued by the next worker that comes by. Errors:
// [ErrNotFound].
func (c *Client) RunSchedule(ctx context.Context, name, id string) error {
	if id == "" {
		id = driver.NewID()
	}
	errs, err := c.store.Signal(ctx, []driver.Signal{{PlanRef: schedule.Ref(name), ID: id, Signal: schedule.SignalRun}})
	if err == nil {
		err = errs[0]
	}
	if errors.Is(err, ErrNotFound) {
		err = driver.Errorf(ErrNotFound, "there is no schedule %s", name)
	}
	return failed("run schedule "+name, err)
}

// DeleteSchedule removes a schedule; tasks that it has enqueued stay. Errors: [ErrNotFound].
func (c *Client) DeleteSchedule(ctx context.Context, name string) error {
	errs, err := c.store.DeletePlans(ctx, []driver.PlanRef{schedule.Ref(name)})
	if err == nil {
		err = errs[0]
	}
	if errors.Is(err, ErrNotFound) {
		err = driver.Errorf(ErrNotFound, "there is no schedule %s", name)
	}
	return failed("delete schedule "+name, err)
}

// NextTicks returns the next n ticks of a schedule after a time, in its zone, with what changes of the clock do to them.
func (s *ScheduleInfo) NextTicks(from time.Time, n int) ([]ScheduleTick, error) {
	if s.body == nil {
		return nil, nil
	}
	return s.body.Next(from, s.body.Anchor, n)
}

// NextTicks returns the next n ticks after a time of a schedule that is not stored yet. Errors: [ErrInvalid].
func (s *Schedule) NextTicks(from time.Time, n int) ([]ScheduleTick, error) {
	spec := schedule.Spec{Line: s.Line, Zone: s.Zone}.WithDefaults()
	return spec.Next(from, from, n)
}
