package redisstore_test

import (
	"context"
	"sync"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/redisstore"
)

// movedStore is a handle of a fixture. The clock of the scripts is the server's plus what the tests moved it by, and each
// call brings that along: a call that was on its way while the clock was moved would come from the past, as no call does
// outside tests. So moving it waits for the calls that change anything, and they for it. What only reads or waits passes.
type movedStore struct {
	*redisstore.Store
	clock *sync.RWMutex // held for writing while the clock is moved
}

// still keeps the clock from being moved until the function that it returns is called.
func (s *movedStore) still() func() {
	s.clock.RLock()
	return s.clock.RUnlock
}

func (s *movedStore) Enqueue(ctx context.Context, tasks []*driver.Task, opts driver.EnqueueOptions) ([]driver.EnqueueResult, error) {
	defer s.still()()
	return s.Store.Enqueue(ctx, tasks, opts)
}

func (s *movedStore) MoveIntake(ctx context.Context, in driver.Intake, most int) (*driver.IntakeResult, error) {
	defer s.still()()
	return s.Store.MoveIntake(ctx, in, most)
}

func (s *movedStore) Register(ctx context.Context, w driver.WorkerInfo, lease time.Duration) error {
	defer s.still()()
	return s.Store.Register(ctx, w, lease)
}

func (s *movedStore) Fetch(ctx context.Context, req driver.FetchRequest) (*driver.FetchResult, error) {
	defer s.still()()
	return s.Store.Fetch(ctx, req)
}

func (s *movedStore) Heartbeat(ctx context.Context, worker string, lease time.Duration) (*driver.HeartbeatResult, error) {
	defer s.still()()
	return s.Store.Heartbeat(ctx, worker, lease)
}

func (s *movedStore) Unregister(ctx context.Context, worker string) error {
	defer s.still()()
	return s.Store.Unregister(ctx, worker)
}

func (s *movedStore) Settle(ctx context.Context, worker string, items []driver.Settlement) ([]driver.SettleResult, error) {
	defer s.still()()
	return s.Store.Settle(ctx, worker, items)
}

func (s *movedStore) Report(ctx context.Context, worker string, items []driver.Report) ([]error, error) {
	defer s.still()()
	return s.Store.Report(ctx, worker, items)
}

func (s *movedStore) Apply(ctx context.Context, c driver.Change) (*driver.ChangeResult, error) {
	defer s.still()()
	return s.Store.Apply(ctx, c)
}

func (s *movedStore) SetQueue(ctx context.Context, queue string, patch driver.QueuePatch) (*driver.QueueConfig, error) {
	defer s.still()()
	return s.Store.SetQueue(ctx, queue, patch)
}

func (s *movedStore) Maintain(ctx context.Context, max int) (*driver.MaintainResult, error) {
	defer s.still()()
	return s.Store.Maintain(ctx, max)
}

func (s *movedStore) Audit(ctx context.Context, repair bool) ([]driver.Finding, error) {
	defer s.still()()
	return s.Store.Audit(ctx, repair)
}
