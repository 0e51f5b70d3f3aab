// Package robustness throws faults at real processes and checks what is left.
//
// It has tests only. Each test starts producers, workers and maintainers as processes of their own, all of them this test
// binary executed again in a role (see child_test.go), on one store. It kills them with SIGKILL at a chosen point of a
// chosen call, freezes them with SIGSTOP, lets their handlers do the worst, and compares in the end what every process
// wrote down (what it enqueued, claimed, ran and settled) with what the store says.
//
// The tests know engines by the URL of a store only, so an engine that several processes can share joins by one entry in
// the table of engines (see engine_test.go).
//
// TestKillLoop runs for WAGGLE_KILLLOOP (a duration; each engine has its own if it is not set), TestSoakKillLoop for WAGGLE_SOAK and only
// if that is set. Both print the seed of a run; WAGGLE_SEED repeats its choices, though not the timing of the machine.
package robustness
