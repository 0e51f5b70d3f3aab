package driver

// validJSON reports whether b is one JSON value. It says what encoding/json.Valid says, and a fuzz test compares the two, in
// less than half the time: every payload is checked when it is enqueued.
func validJSON(b []byte) bool {
	r := jsonReader{b: b}
	r.space()
	ok := r.value(0)
	r.space()
	return ok && r.at == len(b)
}

// maxJSONDepth is how deep values may be nested.
const maxJSONDepth = 10_000

// jsonReader steps over JSON. Its methods report whether what they were to step over was there.
type jsonReader struct {
	b  []byte
	at int
}

// peek returns the next byte; 0, which is in no JSON, at the end.
func (r *jsonReader) peek() byte {
	if r.at < len(r.b) {
		return r.b[r.at]
	}
	return 0
}

func (r *jsonReader) take(c byte) bool {
	if r.peek() != c {
		return false
	}
	r.at++
	return true
}

func (r *jsonReader) space() {
	for r.take(' ') || r.take('\n') || r.take('\t') || r.take('\r') {
	}
}

func (r *jsonReader) value(depth int) bool {
	switch r.peek() {
	case '{':
		return r.list('}', depth+1)
	case '[':
		return r.list(']', depth+1)
	case '"':
		return r.text()
	case 't':
		return r.word("true")
	case 'f':
		return r.word("false")
	case 'n':
		return r.word("null")
	}
	return r.number()
}

func (r *jsonReader) word(w string) bool {
	for i := range len(w) {
		if !r.take(w[i]) {
			return false
		}
	}
	return true
}

// list steps over an object or an array, as its end says.
func (r *jsonReader) list(end byte, depth int) bool {
	r.at++
	r.space()
	if depth > maxJSONDepth {
		return false
	}
	if r.take(end) {
		return true
	}
	for r.item(end, depth) {
		if r.take(end) {
			return true
		}
		if !r.take(',') {
			return false
		}
		r.space()
	}
	return false
}

// item steps over an item of a list and the space after it.
func (r *jsonReader) item(end byte, depth int) bool {
	if end == '}' {
		if !r.text() {
			return false
		}
		r.space()
		if !r.take(':') {
			return false
		}
		r.space()
	}
	ok := r.value(depth)
	r.space()
	return ok
}

func (r *jsonReader) text() bool {
	if !r.take('"') {
		return false
	}
	for i := r.at; i < len(r.b); i++ {
		switch c := r.b[i]; {
		case c == '"':
			r.at = i + 1
			return true
		case c < ' ':
			return false
		case c == '\\':
			r.at = i + 1
			if !r.escape() {
				return false
			}
			i = r.at - 1
		}
	}
	return false
}

// escape steps over what follows a backslash.
func (r *jsonReader) escape() bool {
	switch r.peek() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		r.at++
		return true
	case 'u':
		r.at++
		for range 4 {
			if c := r.peek(); hexDigit(c) == 0xff && (c < 'A' || c > 'F') {
				return false
			}
			r.at++
		}
		return true
	}
	return false
}

func (r *jsonReader) number() bool {
	r.take('-')
	if !r.take('0') && !r.digits() {
		return false
	}
	if r.take('.') && !r.digits() {
		return false
	}
	if r.take('e') || r.take('E') {
		_ = r.take('+') || r.take('-')
		return r.digits()
	}
	return true
}

func (r *jsonReader) digits() bool {
	from := r.at
	for c := r.peek(); '0' <= c && c <= '9'; c = r.peek() {
		r.at++
	}
	return r.at > from
}
