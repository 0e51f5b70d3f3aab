package redisstore

import (
	"context"

	"github.com/waggleq/waggle/driver"
)

var errNoPlans = driver.Errorf(driver.ErrUnsupported, "the redis store does not offer plans")

// Advance implements driver.Planner.
func (s *Store) Advance(context.Context, []driver.PlanStep) ([]driver.PlanResult, error) {
	return nil, errNoPlans
}

// Signal implements driver.Planner.
func (s *Store) Signal(context.Context, []driver.Signal) ([]error, error) { return nil, errNoPlans }

// GetPlans implements driver.Planner.
func (s *Store) GetPlans(context.Context, []driver.PlanRef, driver.PlanRead) ([]*driver.Plan, error) {
	return nil, errNoPlans
}

// Plans implements driver.Planner.
func (s *Store) Plans(context.Context, driver.PlanQuery, driver.Page) (*driver.PlanPage, error) {
	return nil, errNoPlans
}

// DeletePlans implements driver.Planner.
func (s *Store) DeletePlans(context.Context, []driver.PlanRef) ([]error, error) {
	return nil, errNoPlans
}
