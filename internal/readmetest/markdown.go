// Package readmetest keeps what the documents say true as far as a machine can
// tell: Go examples compile, links lead somewhere, and the commands of the
// README exist. Its tests hold the documents of this module to it;
// CONTRIBUTING.md tells the writer of an example what to keep to.
package readmetest

import (
	"fmt"
	"regexp"
	"strings"
)

// A Document is a Markdown file, taken apart.
type Document struct {
	Path    string          // slash-separated and relative to the module's root
	Blocks  []Block         // the fenced blocks
	Links   []Link          // the links outside of code
	Anchors map[string]bool // the fragments a link can name
}

// A Block is one fenced block.
type Block struct {
	Lang      string // the first word after the fence
	Line      int    // the number of the first line of Text
	Text      string
	Signature string // what a comment <!-- go: (…) … --> just above says
}

// A Link is one link.
type Link struct {
	Line   int
	Target string
}

var (
	fence       = regexp.MustCompile("^(\\s*)(```+|~~~+)\\s*([^\\s`{]*)")
	heading     = regexp.MustCompile(`^#{1,6}\s+(.*?)\s*#*\s*$`)
	signature   = regexp.MustCompile(`^\s*<!--\s*go:\s*(.*?)\s*-->\s*$`)
	inlineCode  = regexp.MustCompile("`[^`]*`")
	inlineLink  = regexp.MustCompile(`\]\(\s*<?([^\s)>]+)>?(?:\s+"[^"]*")?\s*\)`)
	linkTarget  = regexp.MustCompile(`^\s{0,3}\[[^\]]+\]:\s*<?([^\s>]+)>?`)
	htmlLink    = regexp.MustCompile(`(?:href|src)="([^"]+)"`)
	htmlAnchor  = regexp.MustCompile(`(?:id|name)="([^"]+)"`)
	headingLink = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	notInAnchor = regexp.MustCompile(`[^\p{L}\p{N}\p{M} _-]`)
)

// Parse takes a Markdown file apart. It fails on a fence that is never closed.
func Parse(path, text string) (*Document, error) {
	p := &reader{doc: &Document{Path: path, Anchors: make(map[string]bool)}}
	for i, line := range strings.Split(text, "\n") {
		p.line(i+1, strings.TrimSuffix(line, "\r"))
	}
	if p.closing != "" {
		return nil, fmt.Errorf("%s:%d: this block is never closed", path, p.block.Line-1)
	}
	return p.doc, nil
}

// A reader goes through a document line by line.
type reader struct {
	doc       *Document
	signature string // of a comment on the last line that was not blank
	closing   string // what ends the block; empty outside of one
	indent    string
	block     Block
	lines     []string
}

func (p *reader) line(n int, line string) {
	if p.closing != "" {
		p.inBlock(line)
		return
	}
	if m := fence.FindStringSubmatch(line); m != nil {
		p.indent, p.closing = m[1], m[2]
		p.block = Block{Lang: m[3], Line: n + 1, Signature: p.signature}
		p.signature = ""
		return
	}
	if m := signature.FindStringSubmatch(line); m != nil {
		p.signature = m[1]
		return
	}
	if strings.TrimSpace(line) != "" {
		p.signature = ""
	}
	p.prose(n, line)
}

func (p *reader) inBlock(line string) {
	end := strings.TrimSpace(line)
	if strings.HasPrefix(end, p.closing) && strings.Trim(end, p.closing[:1]) == "" {
		p.block.Text = strings.Join(p.lines, "\n") + "\n"
		p.doc.Blocks = append(p.doc.Blocks, p.block)
		p.closing, p.lines = "", nil
		return
	}
	p.lines = append(p.lines, strings.TrimPrefix(line, p.indent))
}

func (p *reader) prose(n int, line string) {
	if m := heading.FindStringSubmatch(line); m != nil {
		p.anchor(m[1])
	}
	line = inlineCode.ReplaceAllString(line, "")
	for _, re := range []*regexp.Regexp{inlineLink, linkTarget, htmlLink} {
		for _, m := range re.FindAllStringSubmatch(line, -1) {
			p.doc.Links = append(p.doc.Links, Link{Line: n, Target: m[1]})
		}
	}
	for _, m := range htmlAnchor.FindAllStringSubmatch(line, -1) {
		p.doc.Anchors[m[1]] = true
	}
}

// anchor adds the fragment that a forge makes of a heading; a repeated one gets
// a number.
func (p *reader) anchor(heading string) {
	heading = headingLink.ReplaceAllString(heading, "$1")
	id := strings.ReplaceAll(notInAnchor.ReplaceAllString(strings.ToLower(heading), ""), " ", "-")
	unique := id
	for i := 1; p.doc.Anchors[unique]; i++ {
		unique = fmt.Sprintf("%s-%d", id, i)
	}
	p.doc.Anchors[unique] = true
}
