package cli

import (
	"errors"
	"strings"

	"github.com/spf13/pflag"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// refuseEmpty refuses flags that were given without a value: an empty selector would select all, and an empty setting
// would be the default, where the user has said something else.
func refuseEmpty(flags *pflag.FlagSet) error {
	var problems []error
	flags.Visit(func(f *pflag.Flag) {
		if f.Value.Type() == "string" && strings.TrimSpace(f.Value.String()) == "" {
			problems = append(problems, driver.Invalidf("--%s is empty: give it a value, or leave it out", f.Name))
		}
	})
	return errors.Join(problems...)
}

// anyError is the flag --any-error: like --error, of all errors of a task.
type anyError struct{ filter *waggle.Filter }

func (e *anyError) Type() string { return "TEXT" }

func (e *anyError) String() string {
	if e.filter.AnyError {
		return e.filter.Error
	}
	return ""
}

func (e *anyError) Set(text string) error {
	if strings.TrimSpace(text) == "" {
		return errors.New("it is empty: give it a value, or leave it out")
	}
	if e.filter.Error != "" {
		return errors.New("--error and --any-error are two ways to look at errors: use one of them")
	}
	e.filter.Error, e.filter.AnyError = text, true
	return nil
}
