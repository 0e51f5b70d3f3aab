package waggle

// StepOf is a step of a workflow whose result is an R: what its handler hands to [Task.SetResult].
type StepOf[R any] struct{ *WorkflowStep }

// AddStep adds a step of a task type with its payload. R is what its result is, so that [Then] can link it:
//
//	charge := waggle.AddStep[Receipt](w, "charge", Charge, order, nil)
//	waggle.Then[Invoice](w, "bill", Bill, charge, nil) // Bill is a Type[Receipt]
//
// nil opts mean the defaults; the queue and the attempts of the type's own options count where opts say nothing.
func AddStep[R, A any](w *Workflow, name string, typ Type[A], args A, opts *StepOptions) StepOf[R] {
	return StepOf[R]{w.Task(name, typ.Name(), args, typ.stepOptions(opts))}
}

// Then adds a step of a task type that comes after another and has its result for a payload. The compiler holds the one to
// the other.
func Then[R, A any](w *Workflow, name string, typ Type[A], from StepOf[A], opts *StepOptions) StepOf[R] {
	return StepOf[R]{w.Task(name, typ.Name(), nil, typ.stepOptions(opts)).Input(from.WorkflowStep)}
}

// stepOptions are the options of a step of this type: what opts do not say is the type's own.
func (t Type[T]) stepOptions(opts *StepOptions) *StepOptions {
	var o StepOptions
	if opts != nil {
		o = *opts
	}
	if own := t.opts; own != nil {
		if o.Queue == "" {
			o.Queue = own.Queue
		}
		if o.MaxAttempts == 0 {
			o.MaxAttempts = own.MaxAttempts
		}
		if o.Timeout == 0 {
			o.Timeout = own.Timeout
		}
	}
	return &o
}
