package driver

import "encoding/binary"

// Stored news begin with one of these.
const (
	newsOfTask   = 'T'
	newsOfSignal = 'S'
)

// AppendNews appends the stored form of news to dst: a byte that tells what they are of, the time as uvarint of
// milliseconds, then their texts, each as uvarint length + bytes, the id of a task packed. Their number is not among it.
func AppendNews(dst []byte, n *News) []byte {
	kind, texts := byte(newsOfTask), []string{string(PackID(nil, n.Task)), n.Step, string(n.State), string(n.Reason), n.Error, string(n.ResultEncoding), string(n.Result)}
	if n.Signal != "" {
		kind, texts = newsOfSignal, []string{n.Signal, n.SignalID, string(n.Payload)}
	}
	dst = binary.AppendUvarint(append(dst, kind), uint64(n.Time.UnixMilli()))
	for _, s := range texts {
		dst = appendString(dst, s)
	}
	return dst
}

// DecodeNews returns the news numbered no. It returns [ErrCorrupt] for bytes that AppendNews did not make.
func DecodeNews(no int64, b []byte) (News, error) {
	r := reader{b: b}
	kind := r.byte()
	n := News{No: no, Time: r.time(r.uvarint())}
	switch kind {
	case newsOfTask:
		n.Task, n.Step, n.State, n.Reason = UnpackID([]byte(r.string())), r.string(), State(r.string()), Reason(r.string())
		n.Error, n.ResultEncoding = r.string(), Encoding(r.string())
		n.Result = r.bytes()
	case newsOfSignal:
		n.Signal, n.SignalID, n.Payload = r.string(), r.string(), r.bytes()
	default:
		r.bad = true
	}
	if r.bad || len(r.b) > 0 {
		return n, Errorf(ErrCorrupt, "news %d of a plan are damaged", no)
	}
	return n, nil
}

// bytes is string for a field that is nil where it is empty, in memory of its own.
func (r *reader) bytes() []byte { return append([]byte(nil), r.take(r.count())...) }
