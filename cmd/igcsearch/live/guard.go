package live

import (
	"context"
	"crypto/hmac"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// Serve serves HTTP until ctx ends, or HTTPS if there are certificates.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler, certificates []tls.Certificate) error {
	server := &http.Server{
		Handler: handler,
		// A whole request or answer has no limit, because events go on for hours.
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

// ByOwnName refuses requests from a browser on this machine that do not use a
// name of this machine. Otherwise a page of another host could read this one,
// by a name of its own that resolves to this machine.
func ByOwnName(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fromHere(r) && !near(r) {
			http.Error(w, "Open this page by the name or the address of the machine.", http.StatusForbidden)
			return
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

// Guard shows the page to other machines only with the token of a keeper. A
// browser gives the token in the address, and then keeps a cookie. A request
// from this machine needs no token, unless behind says that a proxy may be in
// front, whose requests all seem to come from this machine. The paths below /v1
// ask for the token themselves, and the assets hold no results.
func Guard(next http.Handler, k Keeper, addr net.Addr, behind bool) http.Handler {
	name := "igcsearch"
	// A cookie is sent to all ports of a host, so the port is in its name.
	if _, port, err := net.SplitHostPort(addr.String()); err == nil {
		name += "-" + port
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cookie, err := r.Cookie(name)
		token := r.URL.Query().Get("token")
		bearer, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		free := strings.HasPrefix(r.URL.Path, "/v1/") || strings.HasPrefix(r.URL.Path, "/assets/") || !behind && near(r)
		switch {
		case free, err == nil && hmac.Equal([]byte(cookie.Value), []byte(k.PageKey())), k.Admits(bearer):
			next.ServeHTTP(w, r)
		case token != "" && k.Admits(token):
			http.SetCookie(w, &http.Cookie{
				Name: name, Value: k.PageKey(), Path: "/",
				HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode,
			})
			http.Redirect(w, r, "/"+strings.TrimLeft(r.URL.Path, "/"), http.StatusSeeOther)
		default:
			http.Error(w, "Open this page as http://ADDRESS/?token=TOKEN with the token of the coordinator's access "+
				"file, or by ssh -L from the machine that it runs on.", http.StatusUnauthorized)
		}
	})
}

// near reports whether a request comes from this machine and calls it by a name
// of this machine.
func near(r *http.Request) bool {
	if !fromHere(r) {
		return false
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if name, err := os.Hostname(); err == nil && host == name {
		return true
	}
	return host == "localhost" || net.ParseIP(strings.Trim(host, "[]")).IsLoopback()
}

// fromHere reports whether a request comes from this machine.
func fromHere(r *http.Request) bool {
	peer, _, err := net.SplitHostPort(r.RemoteAddr)
	return err == nil && net.ParseIP(peer).IsLoopback()
}
