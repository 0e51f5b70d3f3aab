package main

import (
	"errors"
	"time"
)

// settings say how much is measured. They are part of the results.
type settings struct {
	Rounds      int     `json:"rounds"`
	WarmSeconds float64 `json:"warm_seconds"`
	RunSeconds  float64 `json:"run_seconds"`
	Callers     int     `json:"callers"`
	BulkCallers int     `json:"bulk_callers"`
	BulkBatch   int     `json:"bulk_batch"`
	ByteTasks   int     `json:"byte_tasks"`
	// PickupSamples is a round.
	PickupSamples int `json:"pickup_samples"`
	// RecoverySamples is in all; they run at the same time, at the end.
	RecoverySamples    int     `json:"recovery_samples"`
	RecoveryCapSeconds float64 `json:"recovery_cap_seconds"`
}

func fullSettings() settings {
	return settings{
		Rounds: 5, WarmSeconds: 0.4, RunSeconds: 1.2, Callers: 50, BulkCallers: 4, BulkBatch: 500,
		ByteTasks: 100_000, PickupSamples: 40, RecoverySamples: 5, RecoveryCapSeconds: 180,
	}
}

// quickSettings are for trying the program out; their figures are worth nothing.
func quickSettings() settings {
	s := fullSettings()
	s.Rounds, s.WarmSeconds, s.RunSeconds = 1, 0.2, 0.5
	s.ByteTasks, s.PickupSamples, s.RecoverySamples, s.RecoveryCapSeconds = 10_000, 20, 1, 15
	return s
}

func (s settings) validate() error {
	var errs []error
	positive := func(name string, n float64) {
		if !(n > 0) {
			errs = append(errs, errors.New(name+" must be greater than 0"))
		}
	}
	positive("-rounds", float64(s.Rounds))
	positive("-seconds", s.RunSeconds)
	positive("-samples", float64(s.PickupSamples))
	positive("-kills", float64(s.RecoverySamples))
	positive("-cap", s.RecoveryCapSeconds)
	return errors.Join(errs...)
}

func (s settings) recoveryCap() time.Duration {
	return time.Duration(s.RecoveryCapSeconds * float64(time.Second))
}
