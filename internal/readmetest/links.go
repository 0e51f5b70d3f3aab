package readmetest

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"strings"
)

// CheckLinks returns one sentence for each relative link of the documents that
// names no file of root, or no heading of a document.
func CheckLinks(root fs.FS, docs []*Document) []string {
	byPath := make(map[string]*Document)
	for _, d := range docs {
		byPath[d.Path] = d
	}
	var faults []string
	for _, d := range docs {
		for _, l := range d.Links {
			if err := checkLink(root, byPath, d, l.Target); err != nil {
				faults = append(faults, fmt.Sprintf("%s:%d: link %s: %v", d.Path, l.Line, l.Target, err))
			}
		}
	}
	return faults
}

func checkLink(root fs.FS, byPath map[string]*Document, from *Document, target string) error {
	u, err := url.Parse(target)
	if err != nil {
		return err
	}
	if u.IsAbs() || u.Host != "" {
		return nil
	}
	if strings.HasPrefix(u.Path, "/") {
		return errors.New("write it relative to the document")
	}
	name := from.Path
	if u.Path != "" {
		name = path.Join(path.Dir(from.Path), u.Path)
	}
	if _, err := fs.Stat(root, name); err != nil {
		return err
	}
	if to := byPath[name]; u.Fragment != "" && to != nil && !to.Anchors[u.Fragment] {
		return fmt.Errorf("%s has no heading for #%s", name, u.Fragment)
	}
	return nil
}
