package robustness

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// skewRev names the environment variable that says which commit is the previous version. It is for a source tree
// without history: `none` leaves the tests that need one out.
const skewRev = "WAGGLE_SKEW_REV"

// codePaths are the files that make up the command, as git knows them.
var codePaths = []string{"--", "*.go", "*.lua", "*.sql", "go.mod", ":!*_test.go", ":!bench", ":!tools"}

// previousSource returns a directory with the source of the previous version: the commit that skewRev names, or the
// newest one whose code differs from that of the work tree.
func previousSource(t *testing.T) string {
	t.Helper()
	rev := os.Getenv(skewRev)
	if rev == "none" {
		t.Skipf("%s=none leaves this test out", skewRev)
	}
	if rev == "" {
		rev = previousRev(t)
	}
	text, err := git("archive", "--format=tar", rev)
	if err != nil {
		noPrevious(t, err)
	}
	dir := t.TempDir()
	must(t, untar(dir, strings.NewReader(text)))
	subject, err := git("log", "-1", "--format=%h %s", rev)
	must(t, err)
	t.Logf("the previous version is %s", strings.TrimSpace(subject))
	return dir
}

func previousRev(t *testing.T) string {
	t.Helper()
	if _, err := git(append([]string{"diff", "--quiet", "HEAD"}, codePaths...)...); err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 1 {
			return "HEAD"
		}
		noPrevious(t, err)
	}
	last, err := git(append([]string{"log", "-1", "--format=%H", "HEAD"}, codePaths...)...)
	if err != nil || last == "" {
		noPrevious(t, err)
	}
	rev := strings.TrimSpace(last) + "^"
	if _, err := git("rev-parse", "--quiet", "--verify", rev+"^{commit}"); err != nil {
		noPrevious(t, err)
	}
	return rev
}

func noPrevious(t *testing.T, err error) {
	t.Helper()
	t.Fatalf("there is no earlier version to test this one with (%v): in a shallow clone run `git fetch --unshallow`; "+
		"in any other tree set %s to a commit, or to none to leave this test out", err, skewRev)
}

// git runs git in the root of the module and returns what it prints.
func git(args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir = moduleRoot
	var out, words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &words
	if err := cmd.Run(); err != nil {
		return "", errors.Join(err, errors.New(strings.TrimSpace("git "+args[0]+": "+words.String())))
	}
	return out.String(), nil
}

// moduleRoot is seen from this package.
const moduleRoot = "../.."

// untar writes the directories and files of an archive below dir.
func untar(dir string, archive io.Reader) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for in := tar.NewReader(archive); ; {
		h, err := in.Next()
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case h.Typeflag == tar.TypeDir:
			err = root.MkdirAll(filepath.Clean(h.Name), 0o700)
		case h.Typeflag == tar.TypeReg:
			var text []byte
			if text, err = io.ReadAll(in); err == nil {
				err = root.WriteFile(h.Name, text, 0o600)
			}
		}
		if err != nil {
			return err
		}
	}
}

// version is a waggle command built from one state of the source.
type version struct {
	name string
	path string
}

// buildVersion builds the command of a source tree. replace are files of the tree with texts of their own; those that
// the tree does not have are added.
func buildVersion(t *testing.T, name, source string, replace map[string]string) *version {
	t.Helper()
	dir := t.TempDir()
	v := &version{name: name, path: filepath.Join(dir, "waggle")}
	args := []string{"build", "-buildvcs=false", "-o", v.path}
	if len(replace) > 0 {
		args = append(args, "-overlay", writeOverlay(t, dir, source, replace))
	}
	cmd := exec.Command("go", append(args, "./cmd/waggle")...)
	cmd.Dir = source
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the %s version: %v\n%s", name, err, out)
	}
	return v
}

func writeOverlay(t *testing.T, dir, source string, replace map[string]string) string {
	t.Helper()
	source, err := filepath.Abs(source)
	must(t, err)
	var overlay struct{ Replace map[string]string }
	overlay.Replace = make(map[string]string)
	for file, text := range replace {
		own := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		must(t, os.WriteFile(own, []byte(text), 0o600))
		overlay.Replace[filepath.Join(source, file)] = own
	}
	text, err := json.Marshal(overlay)
	must(t, err)
	file := filepath.Join(dir, "overlay.json")
	must(t, os.WriteFile(file, text, 0o600))
	return file
}

// otherScripts are the scripts of the work tree, each with another digest.
func otherScripts(t *testing.T) map[string]string {
	t.Helper()
	replace := make(map[string]string)
	names, err := fs.Glob(os.DirFS(moduleRoot), "redisstore/lua/*.lua")
	must(t, err)
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(moduleRoot, name))
		must(t, err)
		replace[name] = string(text) + "-- Another version of this script.\n"
	}
	return replace
}
