package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
)

// Entry is a line of a ledger.
type Entry struct {
	Number int    `json:"number"` // 1, 2, 3, …
	Order  string `json:"order"`
	Token  int64  `json:"token,omitzero"`
	Cents  int    `json:"cents,omitzero"`
}

// ledger is a file of entries, which are on disk before anybody is told of them. It is not safe for concurrent use.
type ledger struct {
	file    *os.File
	entries []Entry
}

// openLedger opens a ledger with what is in it already.
func openLedger(path string) (*ledger, error) {
	entries, err := readLedger(path)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	return &ledger{f, entries}, err
}

// add writes an entry and returns it with its number.
func (l *ledger) add(e Entry) (Entry, error) {
	e.Number = len(l.entries) + 1
	b, err := json.Marshal(e)
	if err != nil {
		return e, err
	}
	if _, err := l.file.Write(append(b, '\n')); err != nil {
		return e, err
	}
	if err := l.file.Sync(); err != nil {
		return e, err
	}
	l.entries = append(l.entries, e)
	return e, nil
}

// readLedger returns what is in a ledger; nothing if there is none.
func readLedger(path string) ([]Entry, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var entries []Entry
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var e Entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}
