package driver

// Directive is what a worker has been told about its work as a whole. It belongs to the worker's life: the next one, of
// the same process even, begins without.
type Directive string

// The directives.
const (
	DirectServe Directive = ""      // go on as its options say; what every worker begins with
	DirectQuiet Directive = "quiet" // claim no more, finish what has begun, and stay
	DirectStop  Directive = "stop"  // claim no more, finish what has begun, and end
)

// CheckDirect returns why a directive can't be given to a worker that was told another before: [ErrInvalid] for one that
// is unknown, [ErrState] after DirectStop, since the worker may be on its way out.
func CheckDirect(worker string, before, d Directive) error {
	switch {
	case d != DirectServe && d != DirectQuiet && d != DirectStop:
		return Invalidf("unknown directive %q: there are %q and %q, and none", string(d), DirectQuiet, DirectStop)
	case before == DirectStop && d != DirectStop:
		return Errorf(ErrState, "worker %s has been told to stop", worker)
	}
	return nil
}

// NoWorker is the [ErrNotFound] of Direct.
func NoWorker(id string) error {
	return Errorf(ErrNotFound, "no worker %q is registered", id)
}
