package main

import (
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"igcsearch/cmd/igcsearch/live"
	"igcsearch/store"
	"igcsearch/store/fleet"
)

const (
	near = "127.0.0.1:40000"
	far  = "192.0.2.7:40000"
)

// pageOf makes a coordinator with a page that only it may show.
func pageOf(t *testing.T) (c *fleet.Coordinator, mux *http.ServeMux, token string) {
	t.Helper()
	db, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "page.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	token = fleet.NewToken()
	c, err = fleet.NewCoordinator(t.Context(), fleet.Options{DB: db, Token: token, Program: "v1"})
	if err != nil {
		t.Fatal(err)
	}
	mux = http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "secret") })
	c.Register(mux)
	return c, mux, token
}

// TestCoordinatorPage checks that other machines than the coordinator's see
// nothing without the token.
func TestCoordinatorPage(t *testing.T) {
	t.Parallel()
	coordinator, mux, token := pageOf(t)
	handler := live.Guard{Keeper: coordinator, Addr: &net.TCPAddr{Port: 8080}}.Handler(mux)
	const key = "key"
	for _, c := range []struct {
		from, url, cookie string
		want              int
	}{
		{near, "/", "", http.StatusOK},
		{"[::1]:40000", "/", "", http.StatusOK},
		{"[::ffff:127.0.0.1]:40000", "/", "", http.StatusOK},
		{near, "http://127.0.0.1:8080/", "", http.StatusOK},
		{near, "http://[::1]:8080/", "", http.StatusOK},
		// a page elsewhere whose name resolves to this machine
		{near, "http://evil.example:8080/", "", http.StatusUnauthorized},
		{far, "/", "", http.StatusUnauthorized},
		{far, "/study/x", "", http.StatusUnauthorized},
		{far, "//v1/../", "", http.StatusUnauthorized},
		{far, "/?token=", "", http.StatusUnauthorized},
		{far, "/?token=" + strings.Repeat("0", 64), "", http.StatusUnauthorized},
		{far, "/", strings.Repeat("0", 64), http.StatusUnauthorized},
		{"", "/", "", http.StatusUnauthorized},
		{far, "/?token=" + token, "", http.StatusSeeOther},
		{far, "/", key, http.StatusOK},
		{far, "/", token, http.StatusUnauthorized},
		// the coordinator's own paths ask for it themselves, wherever one comes from
		{near, "/v1/snapshot", "", http.StatusUnauthorized},
		{far, "/v1/snapshot", key, http.StatusUnauthorized},
	} {
		if strings.HasPrefix(c.url, "/") {
			c.url = "http://localhost:8080" + c.url
		}
		r := httptest.NewRequest("GET", c.url, nil)
		r.RemoteAddr = c.from
		if c.cookie == key {
			c.cookie = coordinator.PageKey()
		}
		if c.cookie != "" {
			r.AddCookie(&http.Cookie{Name: "igcsearch-8080", Value: c.cookie})
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != c.want {
			t.Errorf("%s from %s with cookie %q: %d, want %d", c.url, c.from, c.cookie, w.Code, c.want)
		}
		if strings.Contains(w.Body.String(), "secret") != (c.want == http.StatusOK) {
			t.Errorf("%s from %s: %q", c.url, c.from, w.Body)
		}
	}
}

// TestPageByName checks that a page of another host cannot read this one by a name
// that resolves to this machine.
func TestPageByName(t *testing.T) {
	t.Parallel()
	_, mux, _ := pageOf(t)
	page := live.Guard{Hosts: []string{"jupyter.example.org"}}.Handler(mux)
	for _, c := range []struct {
		from, host string
		want       int
	}{
		{near, "localhost:8080", http.StatusOK},
		{near, "LOCALHOST:8080", http.StatusOK},
		{near, "localhost.", http.StatusOK},
		{near, "[::1]:8080", http.StatusOK},
		{near, "10.0.0.5", http.StatusOK}, // a proxy that is called by its address
		{near, "jupyter.example.org", http.StatusOK},
		{near, "Jupyter.Example.org:443", http.StatusOK},
		{near, "evil.example:8080", http.StatusForbidden},
		{near, "jupyter.example.org.evil.example", http.StatusForbidden},
		{near, "localhost.evil.example:8080", http.StatusForbidden},
		{near, "127.0.0.1.evil.example", http.StatusForbidden},
		{near, "", http.StatusForbidden},
		{far, "node1.example.org", http.StatusOK},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr, r.Host = c.from, c.host
		w := httptest.NewRecorder()
		page.ServeHTTP(w, r)
		if w.Code != c.want {
			t.Errorf("the page as %s from %s: %d, want %d", c.host, c.from, w.Code, c.want)
		}
		if shown := strings.Contains(w.Body.String(), "secret"); shown != (c.want == http.StatusOK) {
			t.Errorf("the page as %s: %s", c.host, w.Body)
		}
		if c.want == http.StatusForbidden && !strings.Contains(w.Body.String(), "--host") {
			t.Errorf("the page as %s does not say what to do: %s", c.host, w.Body)
		}
	}
}

// TestPageBehindProxy checks that a request from this machine needs the token if it
// may come through a proxy.
func TestPageBehindProxy(t *testing.T) {
	t.Parallel()
	coordinator, mux, token := pageOf(t)
	said := httptest.NewRequest("GET", "http://localhost:8080/", nil)
	said.RemoteAddr = near
	said.Header.Set("X-Forwarded-For", "192.0.2.1")
	answer := httptest.NewRecorder()
	live.Guard{Keeper: coordinator, Addr: &net.TCPAddr{Port: 8080}}.Handler(mux).ServeHTTP(answer, said)
	if answer.Code != http.StatusUnauthorized {
		t.Errorf("through a proxy that says so: %d", answer.Code)
	}
	behind := live.Guard{Keeper: coordinator, Addr: &net.TCPAddr{Port: 8080}, Proxied: true}.Handler(mux)
	r := httptest.NewRequest("GET", "http://localhost:8080/", nil)
	r.RemoteAddr = near
	w := httptest.NewRecorder()
	if behind.ServeHTTP(w, r); w.Code != http.StatusUnauthorized {
		t.Errorf("through a proxy: %d", w.Code)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	w = httptest.NewRecorder()
	if behind.ServeHTTP(w, r); w.Code != http.StatusOK {
		t.Errorf("through a proxy with the token: %d", w.Code)
	}
}

// TestCoordinatorElsewhere asks a real coordinator by an address of this machine
// that is not loopback, as others would.
func TestCoordinatorElsewhere(t *testing.T) {
	t.Parallel()
	host := ""
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && ip.IP.IsGlobalUnicast() {
			host = ip.IP.String()
		}
	}
	if host == "" {
		t.Skip("this machine has no address but loopback")
	}
	f := newFaultRun(t)
	access := filepath.Join(f.dir, "a.access")
	serve := start(t, f.command("serve", "cells.toml", "--db", "a.db", "--access", access, "--listen", ":0"))
	var a fleet.Access
	until(t, "an access file", serve.alive, func() bool {
		a, err = fleet.ReadAccess(access)
		return err == nil
	})
	_, port, err := net.SplitHostPort(strings.TrimPrefix(a.Address, "http://"))
	if err != nil {
		t.Fatalf("address %q: %v", a.Address, err)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Jar: jar}
	get := func(url string) (int, string) {
		t.Helper()
		answer, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, _ := io.ReadAll(answer.Body)
		return answer.StatusCode, string(text)
	}
	there := "http://" + net.JoinHostPort(host, port)
	code, text := get(there + "/")
	if code != http.StatusUnauthorized || !strings.Contains(text, "?token=TOKEN") || strings.Contains(text, "cells") {
		t.Errorf("without the token: %d, %s", code, text)
	}
	if code, _ := get(there + "/v1/snapshot"); code != http.StatusUnauthorized {
		t.Errorf("the database without the token: %d", code)
	}
	if code, text := get("http://127.0.0.1:" + port + "/"); code != http.StatusOK || !strings.Contains(text, "cells") {
		t.Errorf("from this machine: %d, %s", code, text)
	}
	if code, text := get(there + "/?token=" + a.Token); code != http.StatusOK || !strings.Contains(text, "cells") {
		t.Errorf("with the token: %d, %s", code, text)
	}
	if code, _ := get(there + "/"); code != http.StatusOK {
		t.Errorf("again, with the cookie: %d", code)
	}
}
