package main

import (
	"html"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"igcsearch/cmd/igcsearch/live"
)

// below starts a proxy that puts a site below a path, as JupyterHub does. It returns the address of the site there,
// without a slash at its end.
func below(t *testing.T, site string) string {
	t.Helper()
	const path = "/user/ada/proxy/8080"
	target, err := url.Parse(site)
	if err != nil {
		t.Fatal(err)
	}
	quiet := log.New(io.Discard, "", 0) // the site may be away for a while
	proxy := &httputil.ReverseProxy{ErrorLog: quiet, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host // as most proxies do
	}}
	mux := http.NewServeMux()
	mux.Handle(path+"/", http.StripPrefix(path, proxy))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL + path
}

// TestServeBelowPath follows all links of the pages, and the way into the page of a coordinator, behind a proxy that
// puts them below a path.
func TestServeBelowPath(t *testing.T) {
	t.Parallel()
	coordinator, _, token := pageOf(t)
	db := filepath.Join(t.TempDir(), "x.db")
	w := newSweep(t, db, "")
	w.train(0)
	mux := http.NewServeMux()
	live.New(&watched{path: db}).Register(mux)
	guard := live.Guard{Keeper: coordinator, Addr: &net.TCPAddr{Port: 8080}, Proxied: true}
	server := httptest.NewServer(guard.Handler(mux))
	t.Cleanup(server.Close)
	root := below(t, server.URL)

	link := regexp.MustCompile(`(?:href|src)="([^"#][^"]*)"`)
	for _, c := range []struct{ from, want string }{
		{"/?token=" + token, "/"},
		{"/studies/sweep?token=" + token, "/studies/sweep"},
		{"/studies/sweep/?token=" + token, "/studies/sweep"},
	} {
		jar, err := cookiejar.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		browser := &http.Client{Jar: jar}
		get := func(address string) (*http.Response, string) {
			t.Helper()
			r, err := browser.Get(address)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Body.Close()
			if r.Header.Get("Content-Type") == "text/event-stream" {
				return r, ""
			}
			text, err := io.ReadAll(r.Body)
			if err != nil {
				t.Fatal(err)
			}
			return r, string(text)
		}
		r, page := get(root + c.from)
		if r.StatusCode != http.StatusOK || r.Request.URL.String() != root+c.want {
			t.Fatalf("%s leads to %s, %s", c.from, r.Request.URL, r.Status)
		}
		links := link.FindAllStringSubmatch(page, -1)
		if len(links) < 10 {
			t.Errorf("%s has only %d links", c.want, len(links))
		}
		data := regexp.MustCompile(`data-root="([^"]*)"`).FindStringSubmatch(page)
		links = append(links, []string{"", data[1] + "events"}) // as the script does
		for _, l := range links {
			to, err := r.Request.URL.Parse(html.UnescapeString(l[1]))
			if err != nil {
				t.Fatal(err)
			}
			if answer, _ := get(to.String()); answer.StatusCode != http.StatusOK {
				t.Errorf("the link %s of %s: %s", l[1], c.want, answer.Status)
			}
		}
		// The cookie is for nobody else behind the proxy.
		other, err := url.Parse(strings.TrimSuffix(root, "8080") + "9090/")
		if err != nil {
			t.Fatal(err)
		}
		if cookies := jar.Cookies(other); len(cookies) > 0 {
			t.Errorf("the cookie is sent to %s too", other)
		}
	}
}

// TestServeHost checks that serve takes names by --host, and nothing that is no name.
func TestServeHost(t *testing.T) {
	t.Parallel()
	for _, host := range []string{
		"https://jupyter.example.org", "jupyter.example.org:443", "jupyter.example.org/user", "",
	} {
		var stderr strings.Builder
		code := run(t.Context(), []string{"serve", "--host", host}, io.Discard, &stderr)
		if code != exitUsage || !strings.Contains(stderr.String(), "want a name without a port or a path") {
			t.Errorf("--host %q: exit code %d: %s", host, code, stderr.String())
		}
	}
}
