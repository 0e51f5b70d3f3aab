package web

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// guard lets in what comes from the chat's own pages, or from no page at all. It stands before every route.
//
// A name that somebody else's DNS points to 127.0.0.1 is refused by its Host, and a page of another site by its Origin. The
// pages of the web servers may talk to each other, as a browser whose server died goes on with the other.
func (s *Server) guard(next http.Handler) http.Handler {
	policy := s.policy()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		h.Add("Vary", "Origin")
		if !slices.Contains(s.hosts, r.Host) {
			fail(w, http.StatusForbidden, "this host name is not the chat's: use http://"+s.hosts[0])
			return
		}
		origin := r.Header.Get("Origin")
		if origin != "" && !slices.Contains(s.origins, origin) || origin == "" && isForeign(r) {
			fail(w, http.StatusForbidden, "a page of another site asked for this")
			return
		}
		if origin != "" {
			h.Set("Access-Control-Allow-Origin", origin)
		}
		if r.Method == http.MethodOptions {
			h.Set("Access-Control-Allow-Methods", "GET, POST")
			h.Set("Access-Control-Allow-Headers", "Content-Type, "+clientHeader+", "+controlHeader)
			h.Set("Access-Control-Max-Age", "600")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isForeign reports whether a browser says that another site's page asked. Following a link to the page is not that.
func isForeign(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	isVisit := r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate"
	return site != "" && site != "same-origin" && site != "none" && !isVisit
}

// policy is the Content-Security-Policy: nothing from elsewhere, nothing inline, connections to the chat alone.
func (s *Server) policy() string {
	return "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; " +
		"frame-ancestors 'none'; connect-src 'self' " + strings.Join(s.origins, " ")
}

// allow sets which Host names and origins are the chat's own.
func (s *Server) allow() {
	names := []string{"127.0.0.1", "localhost"}
	for _, name := range names {
		s.hosts = append(s.hosts, name+":"+strconv.Itoa(s.role.Port))
		for _, port := range s.role.Peers {
			s.origins = append(s.origins, "http://"+name+":"+strconv.Itoa(port))
		}
	}
	slices.Sort(s.origins)
}
