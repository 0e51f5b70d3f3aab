package waggle_test

import (
	"context"
	"reflect"
	"runtime"
	"testing"

	"github.com/waggleq/waggle"
)

// TestNilReceivers calls every exported method of a nil pointer: as anywhere in Go it panics, in the caller's goroutine, or
// says what is wrong with its arguments. None does a part of its work, or ends the program from another goroutine.
func TestNilReceivers(t *testing.T) {
	t.Parallel()
	for _, receiver := range []any{
		(*waggle.Client)(nil), (*waggle.Worker)(nil), (*waggle.Task)(nil), (*waggle.TaskInfo)(nil),
		(*waggle.Workflow)(nil), (*waggle.WorkflowStep)(nil), (*waggle.Schedule)(nil), (*waggle.ScheduleInfo)(nil),
	} {
		v := reflect.ValueOf(receiver)
		if v.NumMethod() == 0 {
			t.Errorf("%s has no methods", v.Type())
		}
		for i := range v.NumMethod() {
			method := v.Type().Method(i)
			if out, panicked := callOnNil(t, v.Method(i)); panicked == nil && !tellsAnError(out) {
				t.Errorf("(%s).%s goes on without its receiver: %v", v.Type(), method.Name, out)
			} else if _, isRuntime := panicked.(runtime.Error); panicked != nil && !isRuntime {
				t.Errorf("(%s).%s panics with %v", v.Type(), method.Name, panicked)
			}
		}
	}
}

// callOnNil calls a method with arguments that are in order, and reads the first element of what can be iterated over.
func callOnNil(t *testing.T, method reflect.Value) (out []reflect.Value, panicked any) {
	defer func() { panicked = recover() }()
	var in []reflect.Value
	for p := range method.Type().Ins() {
		arg := reflect.New(p).Elem()
		switch {
		case p == reflect.TypeFor[context.Context]():
			arg = reflect.ValueOf(t.Context())
		case method.Type().IsVariadic() && len(in) == method.Type().NumIn()-1:
			arg = reflect.Zero(p.Elem())
		case p.Kind() == reflect.String:
			arg.SetString("x")
		}
		in = append(in, arg)
	}
	out = method.Call(in)
	for _, o := range out {
		if o.Kind() == reflect.Func && o.Type().CanSeq2() {
			for _, err := range o.Seq2() {
				return []reflect.Value{err}, nil
			}
		}
	}
	return out, nil
}

// tellsAnError reports whether the last of what a method returned is an error.
func tellsAnError(out []reflect.Value) bool {
	if len(out) == 0 {
		return false
	}
	err, ok := out[len(out)-1].Interface().(error)
	return ok && err != nil
}
