package cli

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestSideWriter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		from, to := io.Pipe()
		s := newSideWriter(to)
		line := strings.Repeat("x", 1023) + "\n"
		fmt.Fprint(s, line) // the one that is being written
		synctest.Wait()
		for range sideRoom/len(line) + 217 {
			fmt.Fprint(s, line)
		}
		began := time.Now()
		s.flush(time.Second)
		if waited := time.Since(began); waited != time.Second {
			t.Errorf("flush took %v", waited)
		}
		read := make(chan string)
		go func() {
			text, _ := io.ReadAll(from) // a pipe reads to its end
			read <- string(text)
		}()
		s.flush(time.Second)
		_ = to.Close() // never fails
		text := <-read
		if n := strings.Count(text, line); n != sideRoom/len(line)+1 || strings.Count(text, "waggle: 217 log lines were dropped: nobody read them in time\n") != 1 {
			t.Errorf("%d lines came out, and of dropped ones it says %q", n, strings.ReplaceAll(text, line, ""))
		}
	})
}

// TestSideWriterWithoutReader: each write fails, and nothing else does.
func TestSideWriterWithoutReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		from, to := io.Pipe()
		_ = from.Close() // never fails
		s := newSideWriter(to)
		for range 3 {
			fmt.Fprintln(s, "line")
			synctest.Wait()
		}
		s.flush(time.Second)
	})
}
