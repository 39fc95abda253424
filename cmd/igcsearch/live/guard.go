package live

import (
	"context"
	"crypto/hmac"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"igcsearch/store/download"
)

// Serve serves HTTP until ctx ends, or HTTPS if there are certificates.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler, certificates []tls.Certificate) error {
	server := &http.Server{
		// A whole answer has no limit, because events go on for hours.
		Handler:           download.Steady(withoutBody(handler), download.Patience),
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 1 << 16,
		// The streams of events end with ctx. Otherwise Shutdown would wait for them.
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	if len(certificates) > 0 {
		server.TLSConfig = &tls.Config{Certificates: certificates, NextProtos: []string{"h2", "http/1.1"}}
		listener = tls.NewListener(listener, server.TLSConfig)
	}
	stopped := make(chan error, 1)
	defer context.AfterFunc(ctx, func() {
		wait, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		err := server.Shutdown(wait)
		if errors.Is(err, context.DeadlineExceeded) {
			err = server.Close() // a download takes longer
		}
		stopped <- err
	})()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	if err := <-stopped; err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// withoutBody limits the time that a request may take to send a body, which no page
// reads. The paths below /v1 have limits of their own.
func withoutBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != http.NoBody && !strings.HasPrefix(r.URL.Path, "/v1/") {
			http.NewResponseController(w).SetReadDeadline(time.Now().Add(10 * time.Second))
		}
		next.ServeHTTP(w, r)
	})
}

// Keeper knows who may see a page. A fleet.Coordinator is one.
type Keeper interface {
	// Admits reports whether a token is the right one.
	Admits(token string) bool
	// PageKey is what a browser keeps in place of the token.
	PageKey() string
}

// Guard decides who may see a page.
//
// A page alone is for everybody who can reach it. But if a request comes from this
// machine, it has to call the machine by its own name. Otherwise a page of another
// host could read this one in the browser of a user, by a name of its own that
// resolves to this machine.
//
// The page of a coordinator is for those who have its token. A browser gives the
// token in the address, and then keeps a cookie. Only a request from this machine, by
// its own name, needs no token. The paths below /v1 ask for the token themselves, and
// the assets hold no results.
type Guard struct {
	Keeper Keeper // of a coordinator; nil for a page alone
	Addr   net.Addr
	// Hosts are other names that a page may be called by, those of a proxy on this
	// machine.
	Hosts []string
	// Proxied says that a proxy may be in front, whose requests all seem to come
	// from this machine.
	Proxied bool
}

// Handler returns a handler that lets next answer to those who may see it.
func (g Guard) Handler(next http.Handler) http.Handler {
	if g.Keeper != nil {
		return g.byToken(next)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fromHere(r) && !g.isOurs(hostOf(r)) {
			http.Error(w, fmt.Sprintf("Open this page by the name or the address of the machine. If a proxy on it "+
				"passes on the name %q, start igcsearch serve with --host and this name.", hostOf(r)),
				http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (g Guard) byToken(next http.Handler) http.Handler {
	name := "igcsearch"
	// A cookie is sent to all ports of a host, so the port is in its name.
	if _, port, err := net.SplitHostPort(g.Addr.String()); err == nil {
		name += "-" + port
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cookie, err := r.Cookie(name)
		token := r.URL.Query().Get("token")
		bearer, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		near := !g.Proxied && fromHere(r) && !forwarded(r) && isThisMachine(hostOf(r))
		free := strings.HasPrefix(r.URL.Path, "/v1/") || strings.HasPrefix(r.URL.Path, "/assets/") || near
		switch {
		case free, err == nil && hmac.Equal([]byte(cookie.Value), []byte(g.Keeper.PageKey())), g.Keeper.Admits(bearer):
			next.ServeHTTP(w, r)
		case token != "" && g.Keeper.Admits(token):
			enter(w, r, token, &http.Cookie{Name: name, Value: g.Keeper.PageKey()})
		default:
			http.Error(w, "Open this page as http://ADDRESS/?token=TOKEN with the token of the coordinator's access "+
				"file, or by ssh -L from the machine that it runs on.", http.StatusUnauthorized)
		}
	})
}

// enter gives a browser a cookie and sends it to the address without the token. The
// cookie has no path, so that it is for the folder of the address as the browser
// knows it, which is the whole site if that is the address of the page of all
// studies. A browser that asked for another page goes there first.
func enter(w http.ResponseWriter, r *http.Request, token string, cookie *http.Cookie) {
	if r.URL.Path != "/" {
		back := "./" + strings.Repeat("../", strings.Count(r.URL.Path, "/")-1)
		study := strings.Trim(strings.TrimPrefix(r.URL.Path, "/studies/"), "/")
		redirect(w, back+"?"+url.Values{"token": {token}, "study": {study}}.Encode(), http.StatusSeeOther)
		return
	}
	// Lax, because a browser does not send a strict cookie after a link in a mail was followed.
	cookie.HttpOnly, cookie.Secure, cookie.SameSite = true, r.TLS != nil, http.SameSiteLaxMode
	http.SetCookie(w, cookie)
	to := "./"
	if study := r.URL.Query().Get("study"); study != "" {
		to += "studies/" + url.PathEscape(study)
	}
	redirect(w, to, http.StatusSeeOther)
}

// isOurs reports whether a host is this machine, or one that was named. An address
// is what it says: nobody can make it resolve to another one.
func (g Guard) isOurs(host string) bool {
	named := func(h string) bool { return strings.EqualFold(h, host) }
	return isThisMachine(host) || net.ParseIP(host) != nil || slices.ContainsFunc(g.Hosts, named)
}

// hostOf returns the host that a request calls the page by, without a port.
func hostOf(r *http.Request) string {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.TrimSuffix(strings.Trim(host, "[]"), ".")
}

// isThisMachine reports whether a host is a name or an address of this machine that
// no other host can have.
func isThisMachine(host string) bool {
	if name, err := os.Hostname(); err == nil && strings.EqualFold(host, name) {
		return true
	}
	return strings.EqualFold(host, "localhost") || net.ParseIP(host).IsLoopback()
}

// fromHere reports whether a request comes from this machine.
func fromHere(r *http.Request) bool {
	peer, _, err := net.SplitHostPort(r.RemoteAddr)
	return err == nil && net.ParseIP(peer).IsLoopback()
}

// forwarded reports whether a proxy says that it passes on a request of another
// machine.
func forwarded(r *http.Request) bool {
	return slices.ContainsFunc([]string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via"},
		func(name string) bool { return r.Header.Get(name) != "" })
}
