package sqlitestore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle/driver"
)

// salvage reads a damaged file, and makes sure that it is left as it was.
func salvage(t *testing.T, path string) (map[string]*driver.Record, *Salvaged, error) {
	t.Helper()
	before, err := os.ReadFile(path)
	must(t, err)
	records := map[string]*driver.Record{}
	found, err := Salvage(t.Context(), path, func(r *driver.Record) error {
		if records[r.ID] != nil {
			t.Errorf("task %s is handed over twice", r.ID)
		}
		records[r.ID] = r
		return nil
	})
	if after, readErr := os.ReadFile(path); readErr != nil || !bytes.Equal(before, after) {
		t.Errorf("the file was changed: %v", readErr)
	}
	return records, found, err
}

// soundRecords returns the path of a closed store, its file, its trees and its tasks.
func soundRecords(t *testing.T) (file []byte, roots map[string]int, want map[string]*driver.Record) {
	t.Helper()
	file, roots = soundFile(t)
	path := dbPath(t)
	write(t, path, file)
	s := open(t, path, nil)
	page, err := s.List(t.Context(), driver.Filter{}, driver.Page{Size: 1000})
	must(t, err)
	want = map[string]*driver.Record{}
	for _, r := range page.Records {
		want[r.ID] = r
	}
	return file, roots, want
}

// TestSalvage reads a sound store, one of which each tree that is read was spoiled, and ones that were cut short. What is handed
// over was stored so, and damage outside the tasks' own records loses none.
func TestSalvage(t *testing.T) {
	t.Parallel()
	file, roots, want := soundRecords(t)
	path := dbPath(t)
	write(t, path, file)
	got, found, err := salvage(t, path)
	must(t, err)
	if diff := cmp.Diff(want, got); diff != "" || *found != (Salvaged{Tasks: len(want)}) {
		t.Errorf("of a sound store: %+v (-want +got):\n%s", found, diff)
	}
	for _, name := range []string{"task", "sqlite_autoindex_task_1", "lane", "queue", "meta", "held", "ended", "report", "store"} {
		page := roots[name]
		damaged := bytes.Clone(file)
		damaged[(page-1)*4096] ^= 0x40
		path := dbPath(t)
		write(t, path, damaged)
		got, found, err := salvage(t, path)
		must(t, err)
		wantStored(t, "without "+name, want, got)
		if name != "task" && len(got) != len(want) || name == "task" && found.Lost != len(want) {
			t.Errorf("without %s: %d of %d tasks, %+v", name, len(got), len(want), found)
		}
	}
	for _, missing := range []int{1, 10, 20} {
		path := dbPath(t)
		write(t, path, file[:len(file)-missing*4096])
		got, found, err := salvage(t, path)
		must(t, err)
		wantStored(t, "cut short", want, got)
		if len(got)+found.Lost != len(want) || missing <= 10 && len(got) == 0 {
			t.Errorf("without its last %d pages: %d of %d tasks, %+v", missing, len(got), len(want), found)
		}
	}
}

// wantStored holds that each task is one that was stored, with its payload and settings.
func wantStored(t *testing.T, what string, want, got map[string]*driver.Record) {
	t.Helper()
	for id, r := range got {
		w := want[id]
		if w == nil {
			t.Errorf("%s: task %s was never stored", what, id)
			continue
		}
		task := w.Task
		if r.Type == "unknown" {
			task.Type, task.Queue = r.Type, r.Queue
		}
		if diff := cmp.Diff(task, r.Task); diff != "" {
			t.Errorf("%s: task %s (-want +got):\n%s", what, id, diff)
		}
	}
}

// TestSalvageGoesRoundDamagedPages spoils every third page of the tasks' own tree. The tasks of the others are handed
// over, and can be enqueued in a new store.
func TestSalvageGoesRoundDamagedPages(t *testing.T) {
	t.Parallel()
	file, roots, want := soundRecords(t)
	root := (roots["task"] - 1) * 4096
	damaged := bytes.Clone(file)
	cells := int(binary.BigEndian.Uint16(file[root+3:]))
	if file[root] != 5 || cells < 5 {
		t.Fatalf("the tree of the tasks has no inner page with many leaves: kind %d, %d cells", file[root], cells)
	}
	for i := 0; i < cells; i += 3 {
		cell := root + int(binary.BigEndian.Uint16(file[root+12+2*i:]))
		child := int(binary.BigEndian.Uint32(file[cell:]))
		damaged[(child-1)*4096] ^= 0x40
	}
	path := dbPath(t)
	write(t, path, damaged)
	got, found, err := salvage(t, path)
	must(t, err)
	wantStored(t, "with damaged pages", want, got)
	if len(got) < len(want)/3 || len(got) >= len(want) || found.Lost != len(want)-len(got) {
		t.Errorf("%d of %d tasks, %+v", len(got), len(want), found)
	}
	s := open(t, dbPath(t), nil)
	var tasks []*driver.Task
	for _, r := range got {
		tasks = append(tasks, &r.Task)
	}
	results, err := s.Enqueue(t.Context(), tasks, driver.EnqueueOptions{})
	must(t, err)
	for i, r := range results {
		if r.Err != nil {
			t.Errorf("task %s can't be enqueued again: %v", tasks[i].ID, r.Err)
		}
	}
}

// TestSalvageOfWhatIsNoStore has files of which nothing can be read.
func TestSalvageOfWhatIsNoStore(t *testing.T) {
	t.Parallel()
	file, _ := soundFile(t)
	spoilt := bytes.Clone(file)
	spoilt[100] ^= 0x40 // the kind of the first page, the list of tables
	for what, content := range map[string][]byte{"garbage": bytes.Repeat([]byte{0xff}, 8192), "part of the head": file[:60], "no list of tables": spoilt} {
		path := dbPath(t)
		write(t, path, content)
		if got, _, err := salvage(t, path); !errors.Is(err, driver.ErrCorrupt) || len(got) > 0 {
			t.Errorf("%s: got %d tasks, %v, want ErrCorrupt", what, len(got), err)
		}
	}
	_, err := Salvage(t.Context(), dbPath(t), nil)
	wantErr(t, err, driver.ErrUnavailable)
}
