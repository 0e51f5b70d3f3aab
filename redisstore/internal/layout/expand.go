package layout

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Expand puts what they stand for in the place of a script's accessors, so that naming a field costs nothing. L is a
// layout's name; first and last are the same where only one field is meant.
//
//	L_NUM(record, field)          the field as a number
//	L_BYTES(record, first, last)  the fields from first to last as they are
//	L_REST(record)                what follows the fixed part
//	L_FROM(record, field)         all from the field on
//	L_MAKE(field = value, ...)    a fixed part of all fields in their order; a run of fields is first__last = value
//	L_WITH(record, field, value)  the whole record with another value in the field
//	L_LEN                         length of the fixed part
//	FLAG(a, b)                    the sum of flags
//	HAS(flags, a)                 whether a flag is set
//	LASTING(flags)                those flags that never change
//	CONST(name)                   one of Constants
//
// Values of L_MAKE and L_WITH are strings of the right length. Scripts that use accessors include record.lua, which has
// the locals sub, byte and number.
func Expand(text string) (string, error) {
	var b strings.Builder
	for {
		from, to := nextName(text)
		if from < 0 {
			b.WriteString(text)
			return b.String(), nil
		}
		b.WriteString(text[:from])
		name, rest := text[from:to], text[to:]
		if !isAccessor(name) {
			b.WriteString(name)
			text = rest
			continue
		}
		var args []string
		if strings.HasPrefix(rest, "(") && !strings.HasSuffix(name, "_LEN") {
			var err error
			if args, rest, err = arguments(rest); err != nil {
				return "", fmt.Errorf("%s: %w", name, err)
			}
		}
		for i, a := range args {
			var err error
			if args[i], err = Expand(a); err != nil {
				return "", err
			}
		}
		with, err := replacement(name, args)
		if err != nil {
			return "", err
		}
		b.WriteString(with)
		text = rest
	}
}

// nextName returns where the next name in capital letters begins and ends, -1 if there is none. This runs for every script
// whenever a program starts, so it is done by hand.
func nextName(text string) (from, to int) {
	inName := false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c >= 'A' && c <= 'Z' && !inName:
			end := i + 1
			for end < len(text) && isNameByte(text[end]) {
				end++
			}
			return i, end
		default:
			inName = isNameByte(c)
		}
	}
	return -1, -1
}

func isNameByte(c byte) bool {
	return c == '_' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
}

// isAccessor reports whether a name is that of an accessor, or looks like one of a layout.
func isAccessor(name string) bool {
	switch name {
	case "FLAG", "HAS", "LASTING", "CONST":
		return true
	}
	layout, what, ok := strings.Cut(name, "_")
	return ok && what != "" && slices.ContainsFunc(Layouts, func(l *Layout) bool { return l.Name == layout })
}

// arguments splits what stands in the brackets that text begins with, and returns what follows them.
func arguments(text string) (args []string, rest string, err error) {
	depth, from, quote := 0, 1, byte(0)
	add := func(upto int) {
		if a := strings.TrimSpace(text[from:upto]); a != "" {
			args = append(args, a)
		}
		from = upto + 1
	}
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case quote != 0:
			if c == '\\' {
				i++
			} else if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case strings.IndexByte("([{", c) >= 0:
			depth++
		case strings.IndexByte(")]}", c) >= 0:
			if depth--; depth == 0 {
				add(i)
				return args, text[i+1:], nil
			}
		case c == ',' && depth == 1:
			add(i)
		}
	}
	return nil, "", fmt.Errorf("a bracket is not closed")
}

func replacement(name string, args []string) (string, error) {
	switch name {
	case "FLAG":
		sum := 0
		for _, a := range args {
			bit, err := flagBit(a)
			if err != nil {
				return "", err
			}
			sum += bit
		}
		return strconv.Itoa(sum), nil
	case "HAS":
		if len(args) != 2 {
			return "", fmt.Errorf("HAS wants flags and a flag, got %q", args)
		}
		bit, err := flagBit(args[1])
		return fmt.Sprintf("(%s %% %d >= %d)", args[0], 2*bit, bit), err
	case "LASTING":
		if len(args) != 1 {
			return "", fmt.Errorf("LASTING wants flags, got %q", args)
		}
		return fmt.Sprintf("(%s %% 8 + %s - %s %% 64)", args[0], args[0], args[0]), nil
	case "CONST":
		for _, c := range Constants {
			if len(args) == 1 && c.Name == args[0] {
				return strconv.FormatInt(c.Value, 10), nil
			}
		}
		return "", fmt.Errorf("there is no constant %q", args)
	}
	layout, what, _ := strings.Cut(name, "_")
	for _, l := range Layouts {
		if l.Name == layout {
			return l.accessor(what, args)
		}
	}
	return "", fmt.Errorf("there is no layout %s", layout)
}

func flagBit(name string) (int, error) {
	for i, f := range Flags {
		if f.Name == name {
			return 1 << i, nil
		}
	}
	return 0, fmt.Errorf("there is no flag %q", name)
}

// accessor returns what one of the accessors stands for.
func (l *Layout) accessor(what string, args []string) (string, error) {
	fail := func() (string, error) { return "", fmt.Errorf("%s_%s can't have the arguments %q", l.Name, what, args) }
	from, size, ok := 0, 0, true
	if len(args) > 1 {
		from, size, ok = l.offset(args[1])
	}
	switch {
	case !ok:
		if what == "MAKE" {
			return l.make(args)
		}
		return fail()
	case what == "LEN":
		return strconv.Itoa(l.Len()), nil
	case what == "MAKE":
		return l.make(args)
	case what == "REST" && len(args) == 1:
		return fmt.Sprintf("sub(%s, %d)", args[0], l.Len()+1), nil
	case what == "FROM" && len(args) == 2:
		return fmt.Sprintf("sub(%s, %d)", args[0], from+1), nil
	case what == "NUM" && len(args) == 2 && size == 1:
		return fmt.Sprintf("byte(%s, %d)", args[0], from+1), nil
	case what == "NUM" && len(args) == 2:
		return fmt.Sprintf("(number('>I%d', %s, %d))", size, args[0], from+1), nil
	case what == "BYTES" && (len(args) == 2 || len(args) == 3):
		last, size, ok := l.offset(args[len(args)-1])
		if !ok || last < from {
			return fail()
		}
		return fmt.Sprintf("sub(%s, %d, %d)", args[0], from+1, last+size), nil
	case what == "WITH" && len(args) == 3:
		with := fmt.Sprintf("%s .. sub(%s, %d)", operand(args[2]), args[0], from+size+1)
		if from > 0 {
			with = fmt.Sprintf("sub(%s, 1, %d) .. %s", args[0], from, with)
		}
		return with, nil
	}
	return fail()
}

// make returns the concatenation that makes a fixed part. Each field must be given once, in order.
func (l *Layout) make(args []string) (string, error) {
	var values []string
	at := 0
	for _, a := range args {
		fields, value, _ := strings.Cut(a, "=")
		first, last, ranged := strings.Cut(strings.TrimSpace(fields), "__")
		if !ranged {
			last = first
		}
		from, _, ok1 := l.offset(first)
		end, size, ok2 := l.offset(last)
		if !ok1 || !ok2 || from != at || end < from || strings.TrimSpace(value) == "" {
			return "", fmt.Errorf("%s_MAKE: %q is not what comes at byte %d", l.Name, a, at)
		}
		at = end + size
		values = append(values, operand(value))
	}
	if at != l.Len() {
		return "", fmt.Errorf("%s_MAKE has %d bytes, want %d", l.Name, at, l.Len())
	}
	return strings.Join(values, " .. "), nil
}

// operand returns an expression as it can stand beside "..", which binds stronger than "and" and "or".
func operand(value string) string {
	value = strings.TrimSpace(value)
	if strings.Contains(value, " and ") || strings.Contains(value, " or ") {
		return "(" + value + ")"
	}
	return value
}
