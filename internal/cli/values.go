package cli

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// The types of flags. Their errors say what to write instead; the flag's name is added by whoever reports them.

// choice is a flag with few values.
type choice struct {
	value *string
	of    []string
}

func (c *choice) String() string { return *c.value }
func (c *choice) Type() string   { return strings.Join(c.of, "|") }

func (c *choice) Set(s string) error {
	if !slices.Contains(c.of, s) {
		return fmt.Errorf("use %s", orList(c.of))
	}
	*c.value = s
	return nil
}

func orList(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// count is a whole number within bounds.
type count struct {
	value    *int
	min, max int
}

func (c *count) String() string { return strconv.Itoa(*c.value) }
func (c *count) Type() string   { return "N" }

func (c *count) Set(s string) error {
	n, err := strconv.Atoi(s)
	switch {
	case err == nil && n >= c.min && n <= c.max:
		*c.value = n
		return nil
	case c.max == math.MaxInt:
		return fmt.Errorf("write a whole number, %d or more", c.min)
	}
	return fmt.Errorf("write a whole number between %d and %d", c.min, c.max)
}

// span is a length of time, at least min.
type span struct {
	value *time.Duration
	min   time.Duration
}

func (d *span) Type() string { return "D" }

func (d *span) String() string {
	if *d.value == 0 {
		return ""
	}
	return shortDuration(*d.value)
}

func (d *span) Set(s string) error {
	v, err := parseDuration(s)
	if err != nil {
		return err
	}
	if v < d.min {
		return fmt.Errorf("it must be at least %s", shortDuration(d.min))
	}
	*d.value = v
	return nil
}

// parseDuration reads a length of time that is not negative: Go's form, with days as the largest unit.
func parseDuration(s string) (time.Duration, error) {
	const form = "write a length of time like 500ms, 90s, 1m30s, 2h or 3d"
	if strings.HasPrefix(s, "-") {
		return 0, fmt.Errorf("it must not be negative: %s", form)
	}
	days, rest, hasDays := strings.Cut(s, "d")
	var total time.Duration
	if hasDays {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil || n > 36_500 {
			return 0, fmt.Errorf("%s, at most 36500d", form)
		}
		total = time.Duration(n) * 24 * time.Hour
		if rest == "" {
			return total, nil
		}
		s = rest
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || total+d < total {
		return 0, fmt.Errorf("%s", form)
	}
	return total + d, nil
}

// moment is a point in time.
type moment struct{ value *time.Time }

func (m *moment) Type() string { return "TIME" }

func (m *moment) String() string {
	if m.value.IsZero() {
		return ""
	}
	return m.value.Format(time.RFC3339)
}

func (m *moment) Set(s string) (err error) {
	if *m.value, err = parseTime(s, time.Local); err != nil {
		return err
	}
	if m.value.IsZero() {
		return errors.New("it is the year 1, which stands for no time at all")
	}
	if _, err := time.Parse(time.RFC3339Nano, s); err != nil {
		return checkZone(os.Getenv("TZ"))
	}
	return nil
}

// checkZone refuses a TZ that Go takes for UTC because it can't load it: a time would be off by hours without a word.
func checkZone(tz string) error {
	name := strings.TrimPrefix(tz, ":")
	if name == "" || filepath.IsAbs(name) {
		return nil
	}
	if _, err := time.LoadLocation(name); err != nil {
		return fmt.Errorf("the zone of this machine, TZ=%q, can't be loaded: correct TZ, or write the time with its offset, like 2030-12-31T08:00:00Z", tz)
	}
	return nil
}

// parseTime reads a point in time; one without an offset is in zone.
func parseTime(s string, zone *time.Location) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, zone); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("write a time like 2030-12-31T08:00:00Z, or 2030-12-31 08:00 in this machine's zone")
}

// names is a flag that may be repeated, or list several names with commas.
type names struct {
	value *[]string
	what  string
}

func (n *names) Type() string   { return strings.ToUpper(n.what[strings.LastIndexByte(n.what, ' ')+1:]) }
func (n *names) String() string { return strings.Join(*n.value, ",") }

func (n *names) Set(s string) error {
	for name := range strings.SplitSeq(s, ",") {
		if err := driver.CheckName(n.what, name, driver.MaxNameLen); err != nil {
			return err
		}
		*n.value = append(*n.value, name)
	}
	return nil
}

// name is one name.
type name struct {
	value *string
	what  string
}

func (n *name) Type() string   { return strings.ToUpper(n.what[strings.LastIndexByte(n.what, ' ')+1:]) }
func (n *name) String() string { return *n.value }

func (n *name) Set(s string) error {
	if err := driver.CheckName(n.what, s, driver.MaxNameLen); err != nil {
		return err
	}
	*n.value = s
	return nil
}

// states is a list of states of tasks.
type states struct{ value *[]driver.State }

func (s *states) Type() string   { return "STATE" }
func (s *states) String() string { return joinStates(*s.value) }

func (s *states) Set(text string) error {
	for word := range strings.SplitSeq(text, ",") {
		if !driver.State(word).Valid() {
			return fmt.Errorf("there is no state %q: use %s", driver.CutText(word, 64), joinStates(driver.States))
		}
		*s.value = append(*s.value, driver.State(word))
	}
	return nil
}

func joinStates(list []driver.State) string {
	words := make([]string, len(list))
	for i, s := range list {
		words[i] = string(s)
	}
	return strings.Join(words, ", ")
}

// weights is a list of queues, each with its weight.
type weights struct{ value *[]waggle.Queue }

func (w *weights) Type() string { return "QUEUE[=WEIGHT]" }

func (w *weights) String() string {
	words := make([]string, len(*w.value))
	for i, q := range *w.value {
		words[i] = describeQueue(q)
	}
	return strings.Join(words, ",")
}

func (w *weights) Set(s string) error {
	for word := range strings.SplitSeq(s, ",") {
		q, err := parseQueue(word)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(*w.value, func(other waggle.Queue) bool { return other.Name == q.Name }) {
			return fmt.Errorf("the queue %s is named twice", q.Name)
		}
		*w.value = append(*w.value, q)
	}
	return nil
}

// maxWeight bounds the weight of a queue.
const maxWeight = 1000

// parseQueue reads NAME or NAME=WEIGHT.
func parseQueue(s string) (waggle.Queue, error) {
	queue, weight, hasWeight := strings.Cut(s, "=")
	if err := driver.CheckName("queue", queue, driver.MaxNameLen); err != nil {
		return waggle.Queue{}, err
	}
	q := waggle.Queue{Name: queue, Weight: 1}
	if hasWeight {
		if err := (&count{value: &q.Weight, min: 1, max: maxWeight}).Set(weight); err != nil {
			return waggle.Queue{}, fmt.Errorf("the weight of queue %s: %w", queue, err)
		}
	}
	return q, nil
}

func describeQueue(q waggle.Queue) string {
	if q.Weight > 1 {
		return fmt.Sprintf("%s=%d", q.Name, q.Weight)
	}
	return q.Name
}

// intakes is a list of intake lists, each with the type of its tasks; in the environment each line is one.
type intakes struct{ value *[]waggle.Intake }

func (n *intakes) Type() string { return "LIST=TYPE" }

func (n *intakes) String() string {
	words := make([]string, len(*n.value))
	for i, in := range *n.value {
		words[i] = in.List + "=" + in.Type
	}
	return strings.Join(words, "\n")
}

func (n *intakes) Set(s string) error {
	for line := range strings.SplitSeq(s, "\n") {
		i := strings.LastIndexByte(line, '=') // a list's name may have one too
		if i < 0 {
			return fmt.Errorf("write LIST=TYPE, as in tasks=note")
		}
		in := waggle.Intake{List: line[:i], Type: line[i+1:]}
		if err := in.Validate(); err != nil {
			return err
		}
		if slices.ContainsFunc(*n.value, func(other waggle.Intake) bool { return other.List == in.List }) {
			return fmt.Errorf("the list %s is named twice", in.List)
		}
		*n.value = append(*n.value, in)
	}
	return nil
}

// headers is a flag that may be repeated, each time with one pair; in the environment each line is a pair.
type headers struct{ value *map[string]string }

func (h *headers) Type() string { return "NAME=VALUE" }

func (h *headers) String() string { return "" }

func (h *headers) Set(s string) error {
	for line := range strings.SplitSeq(s, "\n") {
		key, value, err := parseHeader(line)
		if err != nil {
			return err
		}
		if _, twice := (*h.value)[key]; twice {
			return fmt.Errorf("the header %q is given twice", key)
		}
		if *h.value == nil {
			*h.value = map[string]string{}
		}
		(*h.value)[key] = value
	}
	return nil
}

// parseHeader reads NAME=VALUE; the value may hold further equals signs.
func parseHeader(s string) (key, value string, err error) {
	key, value, found := strings.Cut(s, "=")
	if !found || key == "" {
		return "", "", fmt.Errorf("write a header as NAME=VALUE")
	}
	return key, value, nil
}
