package driver

import (
	"context"
	"errors"
	"math"
	"time"
	"unicode/utf8"
)

// maxTime bounds times handed in: RFC 3339 and most stores can't hold later ones.
var maxTime = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// Prepare sets the defaults of a new task (ID, Queue, Encoding, MaxAttempts, CrashLimit, Unique's modes), makes its
// times absolute in UTC milliseconds (At and ExpiresAt; Delay and ExpiresIn become 0), and checks every field. now is
// the store's present. It returns nil, or all that is wrong joined: [ErrInvalid] or [ErrUnsupported]; on error the task is unchanged but for its
// defaults. Engines call it on a copy, so that a caller's Delay survives a second try; the ID they write back.
func Prepare(t *Task, c Capabilities, now time.Time) error {
	setDefaults(t)
	var problems []error
	for _, check := range checks {
		if err := check(t, c); err != nil {
			problems = append(problems, err)
		}
	}
	if len(problems) > 0 {
		return errors.Join(problems...)
	}
	return resolveTimes(t, now)
}

var checks = []func(*Task, Capabilities) error{checkNames, checkPayload, checkHeaders, checkNumbers, checkUnique, checkPlan, checkSupported}

func setDefaults(t *Task) {
	if t.ID == "" {
		t.ID = NewIDWithKey(t.Key)
	}
	if t.Queue == "" {
		t.Queue = DefaultQueue
	}
	if t.Encoding == "" {
		t.Encoding = EncodingJSON
	}
	if t.MaxAttempts == 0 {
		t.MaxAttempts = DefaultMaxAttempts
	}
	if t.CrashLimit == 0 {
		t.CrashLimit = DefaultCrashLimit
	}
	if u := t.Unique; u != nil && (u.Until == "" || u.OnConflict == "") {
		v := *u // the caller may share one Unique between tasks
		if v.Until == "" {
			v.Until = UntilDone
		}
		if v.OnConflict == "" {
			v.OnConflict = ConflictReturn
		}
		t.Unique = &v
	}
}

func checkNames(t *Task, _ Capabilities) error {
	err := errors.Join(CheckName("task id", t.ID, MaxIDLen), CheckName("task type", t.Type, MaxNameLen),
		CheckName("queue", t.Queue, MaxNameLen))
	if err != nil {
		return err
	}
	if len(t.Tags) > MaxTags {
		return Invalidf("a task can have %d tags at most, got %d", MaxTags, len(t.Tags))
	}
	for _, tag := range t.Tags {
		if err := CheckName("tag", tag, MaxNameLen); err != nil {
			return err
		}
	}
	return nil
}

// CheckName returns [ErrInvalid] unless name is [A-Za-z0-9._:-]{1,maxLen}. what says what is named.
func CheckName(what, name string, maxLen int) error {
	if name == "" {
		return Invalidf("the %s is empty", what)
	}
	if len(name) > maxLen {
		return Invalidf("the %s is %d bytes long, %d are allowed", what, len(name), maxLen)
	}
	for i := range len(name) {
		if !nameBytes[name[i]] {
			return Invalidf("the %s %q has a character that is not allowed at byte %d: use letters, digits and . _ : -", what, name, i)
		}
	}
	return nil
}

// nameBytes are the bytes that names are made of: a table, as each task has three names that are checked.
var nameBytes = func() (ok [256]bool) {
	for _, b := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-") {
		ok[b] = true
	}
	return ok
}()

func checkPayload(t *Task, c Capabilities) error {
	if len(t.Payload) > c.Limit.MaxPayload {
		return Invalidf("the payload has %d bytes, %d are allowed", len(t.Payload), c.Limit.MaxPayload)
	}
	return CheckEncoding("payload", t.Encoding, t.Payload)
}

// CheckEncoding returns [ErrInvalid] for an unknown encoding, or for bytes that are not one JSON value where they
// should be. Empty JSON is allowed: nothing.
func CheckEncoding(what string, e Encoding, b []byte) error {
	switch e {
	case EncodingRaw:
		return nil
	case EncodingJSON:
		if len(b) > 0 && !validJSON(b) {
			return Invalidf("the %s is not valid JSON", what)
		}
		return nil
	}
	return Invalidf("unknown %s encoding %q: use json or raw", what, brief(e))
}

func checkHeaders(t *Task, _ Capabilities) error {
	size := 0
	for k, v := range t.Headers {
		if k == "" || len(k) > 256 {
			return Invalidf("a header name must have 1 to 256 bytes, got %d", len(k))
		}
		for i := range len(k) {
			if k[i] <= ' ' || k[i] > '~' {
				return Invalidf("the header name %q has a character that is not printable ASCII", k)
			}
		}
		if !utf8.ValidString(v) {
			return Invalidf("the value of header %q is not valid UTF-8", k)
		}
		for i := range len(v) {
			if v[i] == 0 {
				return Invalidf("the value of header %q has a NUL byte", k)
			}
		}
		if size += len(k) + len(v); size > MaxHeaderBytes {
			return Invalidf("the headers have more than %d bytes", MaxHeaderBytes)
		}
	}
	return nil
}

func checkNumbers(t *Task, _ Capabilities) error {
	var problems []error
	if t.Priority < -MaxPriority || t.Priority > MaxPriority {
		problems = append(problems, Invalidf("the priority must be between -100 and 100 (lower runs first), got %d", t.Priority))
	}
	if t.MaxAttempts < 1 || t.MaxAttempts > MaxAttemptsCap {
		problems = append(problems, Invalidf("max attempts must be between 1 and %d, got %d", MaxAttemptsCap, t.MaxAttempts))
	}
	if t.CrashLimit < 1 || t.CrashLimit > MaxAttemptsCap {
		problems = append(problems, Invalidf("the crash limit must be between 1 and %d, got %d", MaxAttemptsCap, t.CrashLimit))
	}
	if t.Timeout < 0 {
		problems = append(problems, Invalidf("the timeout must not be negative, got %v", t.Timeout))
	}
	if t.Timeout > 0 && t.Timeout < time.Millisecond {
		problems = append(problems, Invalidf("the timeout must be at least 1ms, got %v", t.Timeout))
	}
	if t.Delay < 0 {
		problems = append(problems, Invalidf("the delay must not be negative, got %v", t.Delay))
	}
	if t.ExpiresIn < 0 {
		problems = append(problems, Invalidf("the time to expiry must not be negative, got %v", t.ExpiresIn))
	}
	if t.Delay > 0 && !t.At.IsZero() {
		problems = append(problems, Invalidf("a task has a delay or a time, not both"))
	}
	if t.ExpiresIn > 0 && !t.ExpiresAt.IsZero() {
		problems = append(problems, Invalidf("a task has a time to expiry or a time of expiry, not both"))
	}
	if t.Weight < 0 || t.Weight > MaxWeight {
		problems = append(problems, Invalidf("the weight must be between 1 and %d, got %d", MaxWeight, t.Weight))
	}
	return errors.Join(problems...)
}

func checkUnique(t *Task, _ Capabilities) error {
	u := t.Unique
	if u == nil {
		return nil
	}
	if u.Key == "" || len(u.Key) > MaxUniqueLen {
		return Invalidf("a unique key must have 1 to %d bytes, got %d", MaxUniqueLen, len(u.Key))
	}
	switch u.Until {
	case UntilDone, UntilStarted:
		if u.TTL != 0 {
			return Invalidf("a unique key has a TTL only with until %q", UntilTTL)
		}
	case UntilTTL:
		if u.TTL < time.Millisecond || u.TTL > 100*365*24*time.Hour {
			return Invalidf("the TTL of a unique key must be between 1ms and 100 years, got %v", u.TTL)
		}
	default:
		return Invalidf("unknown end of uniqueness %q: use done, started or ttl", brief(u.Until))
	}
	switch u.OnConflict {
	case ConflictReturn, ConflictReject, ConflictReplace:
		return nil
	}
	return Invalidf("unknown conflict policy %q: use return, reject or replace", brief(u.OnConflict))
}

func checkPlan(t *Task, _ Capabilities) error {
	if t.Plan == nil {
		return nil
	}
	if err := t.Plan.Validate(); err != nil {
		return err
	}
	if !t.Plan.owns(t.ID) {
		return Invalidf("task %s can't be a step of %s: its id is not one that PlanTaskID gives", t.ID, t.Plan.PlanRef)
	}
	return CheckName("step of the plan", t.Plan.Step, MaxPlanName)
}

func checkSupported(t *Task, c Capabilities) error {
	switch {
	case (t.Key != "" || t.Weight != 0) && !c.Keys:
		return Errorf(ErrUnsupported, "the %s store does not offer task keys", c.Engine)
	case t.Plan != nil && !c.Plans:
		return Errorf(ErrUnsupported, "the %s store does not offer plans", c.Engine)
	case t.Key != "":
		return CheckName("task key", t.Key, MaxNameLen)
	case t.Weight != 0:
		return Invalidf("a weight is the share of a task's key: give the task a key too")
	}
	return nil
}

func resolveTimes(t *Task, now time.Time) error {
	at, expires := t.At, t.ExpiresAt
	if t.Delay > 0 {
		at = now.Add(t.Delay)
	}
	if t.ExpiresIn > 0 {
		expires = now.Add(t.ExpiresIn)
	}
	at, expires = ceilMilli(at), ceilMilli(expires)
	if err := checkTime("start", at); err != nil {
		return err
	}
	if err := checkTime("expiry", expires); err != nil {
		return err
	}
	if !expires.IsZero() && !expires.After(at) {
		return Invalidf("the task would expire (%s) before it may start (%s)", expires.Format(time.RFC3339), at.Format(time.RFC3339))
	}
	t.At, t.ExpiresAt, t.Delay, t.ExpiresIn = at, expires, 0, 0
	return nil
}

func checkTime(what string, v time.Time) error {
	if !v.IsZero() && (v.Before(time.UnixMilli(0)) || v.After(maxTime)) {
		return Invalidf("the time of %s must be between the years 1970 and 9999, got %v", what, v.Format(time.RFC3339))
	}
	return nil
}

// ceilMilli rounds up, so that a task never starts early.
func ceilMilli(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	m := t.UTC().Truncate(time.Millisecond)
	if m.Before(t) {
		m = m.Add(time.Millisecond)
	}
	return m
}

// CheckBatch returns [ErrInvalid] if tasks are more, or their payloads larger, than one Enqueue takes.
func CheckBatch(tasks []*Task, l Limits) error {
	if len(tasks) > l.MaxBatch {
		return Invalidf("a batch can have %d tasks at most, got %d", l.MaxBatch, len(tasks))
	}
	size := 0
	for i, t := range tasks {
		if t == nil {
			return Invalidf("task %d of the batch is nil", i)
		}
		size += len(t.Payload)
	}
	if size > l.MaxBatchBytes {
		return Invalidf("the payloads of a batch can have %d bytes at most, got %d", l.MaxBatchBytes, size)
	}
	return nil
}

// CheckSettlement returns [ErrInvalid] unless s is well formed, [ErrUnsupported] if it needs what c lacks.
func CheckSettlement(s *Settlement, c Capabilities) error {
	switch s.Outcome {
	case Complete, Retry, Snooze, Release, Discard, CancelOutcome:
	default:
		return Invalidf("unknown outcome %q", brief(s.Outcome))
	}
	switch {
	case s.Delay < 0 || s.Delay > 100*365*24*time.Hour:
		return Invalidf("the delay must be between 0 and 100 years, got %v", s.Delay)
	case s.Ran < 0:
		return Invalidf("the running time must not be negative, got %v", s.Ran)
	case s.MaxAttempts < 0 || s.MaxAttempts > MaxAttemptsCap:
		return Invalidf("max attempts must be between 0 and %d, got %d", MaxAttemptsCap, s.MaxAttempts)
	case len(s.Result) > MaxResultBytes:
		return Invalidf("the result has %d bytes, %d are allowed", len(s.Result), MaxResultBytes)
	}
	if s.ResultEncoding == "" && len(s.Result) == 0 {
		return nil
	}
	return CheckEncoding("result", s.ResultEncoding, s.Result)
}

// CheckReport returns [ErrInvalid] for what can't be stored of a report, or its progress as it is stored.
func CheckReport(r *Report) (*Progress, error) {
	for i := range r.Logs {
		if y := r.Logs[i].Time.Year(); y < 1 || y > 9999 {
			return nil, Invalidf("a log line is of the year %d, which is not between 1 and 9999", y)
		}
	}
	if r.Progress == nil {
		return nil, nil
	}
	p := *r.Progress
	for _, v := range []float64{p.Done, p.Total} {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, Invalidf("the progress has a number that is not finite: done %v of %v", p.Done, p.Total)
		}
	}
	p.Note = CutText(p.Note, MaxErrorBytes)
	return &p, nil
}

// CheckLease returns [ErrInvalid] unless the lease is between [MinLease] and [MaxLease].
func CheckLease(d time.Duration) error {
	if d < MinLease || d > MaxLease {
		return Invalidf("the lease must be between %v and %v, got %v", MinLease, MaxLease, d)
	}
	return nil
}

// CheckWorker returns [ErrInvalid] unless w can be registered.
func CheckWorker(w *WorkerInfo) error {
	if err := CheckName("worker id", w.ID, MaxNameLen); err != nil {
		return err
	}
	for _, q := range w.Queues {
		if err := CheckName("queue", q, MaxNameLen); err != nil {
			return err
		}
	}
	for _, t := range w.Types {
		if err := CheckName("task type", t, MaxNameLen); err != nil {
			return err
		}
	}
	return nil
}

// CheckFetch returns [ErrInvalid] unless r is well formed.
func CheckFetch(r *FetchRequest) error {
	if r.Max < 0 {
		return Invalidf("the number of tasks to fetch must not be negative, got %d", r.Max)
	}
	if r.Plans < 0 {
		return Invalidf("the number of plans to fetch must not be negative, got %d", r.Plans)
	}
	if r.Wait < 0 {
		return Invalidf("the time to wait for work must not be negative, got %v", r.Wait)
	}
	if len(r.Queues) == 0 {
		return Invalidf("a fetch needs at least one queue")
	}
	return CheckLease(r.Lease)
}

// AwaitFirst does what FetchRequest.Wait asks for, for engines that can't have both in one step. It returns how long that took.
func AwaitFirst(ctx context.Context, f Fetcher, r *FetchRequest) (time.Duration, error) {
	if r.Wait <= 0 {
		return 0, nil
	}
	began := time.Now()
	err := f.Await(ctx, AwaitRequest{Worker: r.Worker, For: ForWork, Queues: r.Queues, Types: r.Types, Plans: r.Plans > 0, Max: r.Wait})
	return time.Since(began), err
}
