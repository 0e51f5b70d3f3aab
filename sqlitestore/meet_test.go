package sqlitestore

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"
)

// childMeet opens a store. It says "look" between two looks at the files, number args[1], and goes on when it has read a
// line. Then it says what became of it.
func childMeet(args []string) {
	at, err := strconv.Atoi(args[1])
	if err != nil {
		panic(err)
	}
	look := 0
	betweenLooks = func() {
		if look == at {
			fmt.Println("look")
			if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
				panic(err)
			}
		}
		look++
	}
	s, err := Open(context.Background(), args[0], nil)
	if err != nil {
		fmt.Println("refused:", err)
		return
	}
	fmt.Println("open")
	if err := s.Close(); err != nil {
		panic(err)
	}
}

// TestTwoProcessesMeetAtTheDoor lets a process open a store, and between any two of its looks at the files another one,
// which makes or mends the store, and stays or leaves again. Nobody takes the other's half of the work for damage.
func TestTwoProcessesMeetAtTheDoor(t *testing.T) {
	t.Parallel()
	for _, crash := range []bool{false, true} {
		for _, stays := range []bool{false, true} {
			t.Run(fmt.Sprintf("crash=%v,stays=%v", crash, stays), func(t *testing.T) {
				t.Parallel()
				looks := 0
				for ; ; looks++ {
					path := dbPath(t)
					if crash {
						path = crashed(t, 20)
					}
					p := child(t, "meet", path, itoa(int64(looks)))
					said := p.line()
					if said == "look" {
						meet(t, path, stays)
						_, err := fmt.Fprintln(p.stdin)
						must(t, err)
						if answer := p.line(); answer != "open" {
							t.Errorf("look %d: %s", looks, answer)
						}
					}
					if err := p.Wait(); err != nil {
						t.Errorf("look %d: %v", looks, err)
					}
					if said != "look" {
						break
					}
				}
				if looks < 4 {
					t.Errorf("only %d looks: the test does not see them all", looks)
				}
			})
		}
	}
}

// meet opens the store in a process of its own, as far as the one that looks lets it, and stores a task.
func meet(t *testing.T, path string, stays bool) {
	t.Helper()
	p := child(t, "serve", path)
	opened := make(chan struct{})
	go func() {
		defer close(opened)
		for range 2 { // "open", and the task's id
			if _, err := p.out.ReadString('\n'); err != nil {
				t.Errorf("the other process ended: %v", err)
				return
			}
		}
	}()
	_, err := fmt.Fprintln(p.stdin)
	must(t, err)
	if !stays {
		must(t, p.stdin.Close())
	}
	select {
	case <-opened:
		if !stays {
			must(t, p.Wait())
		}
	case <-time.After(300 * time.Millisecond): // the one that looks holds a lock
		t.Cleanup(func() { <-opened })
	}
}
