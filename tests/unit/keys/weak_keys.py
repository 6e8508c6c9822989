"""RSA keys with known faults, made to order: only their public halves exist."""

import functools
import math

import gmpy2
from cryptography.hazmat.primitives.asymmetric import rsa

PRIME_BITS = 1024


def public_key(n: int, e: int = 65537) -> rsa.RSAPublicKey:
    """Return the public key with this modulus and exponent."""
    return rsa.RSAPublicNumbers(e, n).public_key()


@functools.cache
def prime(seed: int, bits: int = PRIME_BITS) -> int:
    """Return a prime whose two top bits are set; the same for the same *seed*."""
    state = gmpy2.random_state(seed)
    start = gmpy2.mpz_urandomb(state, bits) | (gmpy2.mpz(3) << (bits - 2)) | 1
    return int(gmpy2.next_prime(start))


def good_modulus(bits: int = 2048) -> int:
    """Return a modulus that has no fault, of *bits* bits."""
    return prime(1, bits // 2) * prime(2, bits - bits // 2)


def close_primes() -> int:
    """Return a modulus whose primes are neighbours."""
    p = prime(3)
    return p * int(gmpy2.next_prime(p))


def small_factor() -> int:
    """Return a modulus of 2048 bits that 10007 divides."""
    return 10007 * int(gmpy2.next_prime((3 << 2046) // 10007))


def roca_shaped() -> int:
    """Return a modulus whose primes have the form of the faulty chips.

    There p = k·M + (65537^a mod M), with M a product of small primes.
    """
    small = [p for p in range(2, 702) if gmpy2.is_prime(p)]
    product = math.prod(small[:126])  # what these chips used for 2048-bit keys
    primes: list[int] = []
    start = (3 << (PRIME_BITS - 2)) // product
    exponent = 7
    while len(primes) < 2:
        exponent += 1
        candidate = (start + exponent) * product + pow(65537, exponent, product)
        if gmpy2.is_prime(candidate):
            primes.append(candidate)
    return primes[0] * primes[1]


def small_private_exponent() -> tuple[int, int]:
    """Return (n, e) whose private exponent is short enough for Wiener's attack."""
    p, q = prime(4), prime(5)
    phi = (p - 1) * (q - 1)
    d = int(gmpy2.next_prime(1 << 400))
    while math.gcd(d, phi) != 1:
        d = int(gmpy2.next_prime(d))
    return p * q, pow(d, -1, phi)


def repeating() -> int:
    """Return a modulus that repeats a byte, as a vanity key or a broken generator does."""
    top = int.from_bytes(b"\xc5" + b"\xaa" * 40 + bytes(range(1, 216)), "big")
    factor = prime(6)
    return factor * int(gmpy2.next_prime(top // factor))
