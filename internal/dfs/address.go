package dfs

import (
	"net"
	"net/url"
	"strconv"
	"strings"
)

// ParseBaseURL accepts http://host:port, without user, path, query or
// fragment (one trailing slash is dropped), and returns it in that form.
func ParseBaseURL(s string) (string, error) {
	fail := func(why string) (string, error) {
		return "", Errorf(Invalid, "%.120q is not the address of a daemon: %s; write it like http://host:8000", s, why)
	}
	if len(s) > MaxURLLength {
		return fail("it is too long")
	}
	u, err := url.Parse(strings.TrimSuffix(s, "/"))
	switch {
	case err != nil:
		return fail("it is not a URL")
	case u.Scheme != "http":
		return fail("the scheme is not http")
	case u.User != nil || u.Path != "" || u.Opaque != "" || strings.ContainsAny(s, "?#"):
		return fail("there is more than host and port")
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "80")
	}
	if _, err := ParseHostPort(host); err != nil {
		return fail("host or port is not valid")
	}
	base := "http://" + host
	if len(base) > MaxURLLength {
		return fail("it is too long")
	}
	return base, nil
}

// ParseHostPort accepts host:port with a name or an IP address (of version 6 in
// brackets, without a zone) and a port from 1 to 65535.
func ParseHostPort(s string) (string, error) {
	host, port, err := net.SplitHostPort(s)
	if err == nil && len(s) <= MaxURLLength && isHost(host) {
		if n, err := strconv.ParseUint(port, 10, 16); err == nil && n > 0 {
			return net.JoinHostPort(host, port), nil
		}
	}
	return "", Errorf(Invalid, "%.120q is not an address: write it like host:7000", s)
}

// isHost tells whether s has only what a name or an IP address has: it is put
// into URLs, headers and logs.
func isHost(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isAlphanumeric(c) && c != '.' && c != '-' && c != '_' && c != ':' {
			return false
		}
	}
	return s != ""
}
