"""One form for a word and its inflections: what the rules compare.

Not a dictionary form: only equal for the inflections of one word, and rarely equal for two different words. Cached, since
questions share their words.
"""

from functools import lru_cache
from typing import Final

from inference_cache_sidecar.guard.lists import wordset
from inference_cache_sidecar.guard.synonyms import SAME

_IRREGULAR_LINES: Final = """
be am is are was were been being
do does did done doing
use uses used using
have has had having
go goes went gone going
get gets got gotten getting
make makes made making
take takes took taken taking
give gives gave given giving
come comes came coming
see sees saw seen seeing
know knows knew known knowing
think thinks thought thinking
say says said saying
tell tells told telling
find finds found finding
buy buys bought buying
sell sells sold selling
send sends sent sending
spend spends spent spending
lend lends lent lending
lose loses lost losing
win wins won winning
pay pays paid paying
keep keeps kept keeping
leave leaves left leaving
feel feels felt feeling
build builds built building
bring brings brought bringing
teach teaches taught teaching
catch catches caught catching
fight fights fought fighting
write writes wrote written writing
drive drives drove driven driving
ride rides rode ridden riding
rise rises rose risen rising
speak speaks spoke spoken speaking
break breaks broke broken breaking
choose chooses chose chosen choosing
steal steals stole stolen stealing
freeze freezes froze frozen freezing
forget forgets forgot forgotten forgetting
eat eats ate eaten eating
fall falls fell fallen falling
grow grows grew grown growing
throw throws threw thrown throwing
fly flies flew flown flying
draw draws drew drawn drawing
begin begins began begun beginning
drink drinks drank drunk drinking
sing sings sang sung singing
swim swims swam swum swimming
run runs ran running
sit sits sat sitting
meet meets met meeting
hold holds held holding
stand stands stood standing
understand understands understood understanding
hear hears heard hearing
sleep sleeps slept sleeping
die dies died dying
lie lies lied lying
tie ties tied tying
hide hides hid hidden hiding
bite bites bit bitten biting
wear wears wore worn wearing
tear tears tore torn tearing
swear swears swore sworn
shake shakes shook shaken shaking
wake wakes woke woken waking
shoot shoots shot shooting
hang hangs hung hanging
stick sticks stuck sticking
strike strikes struck striking
swing swings swung swinging
become becomes became becoming
deal deals dealt dealing
mean means meant meaning
dream dreams dreamt dreamed
learn learns learnt learned learning
burn burns burnt burned
spell spells spelt spelled
man men
woman women
child children
person persons
foot feet
tooth teeth
mouse mice
goose geese
life lives
wife wives
knife knives
leaf leaves
half halves
self selves
wolf wolves
shelf shelves
thief thieves
analysis analyses
crisis crises
thesis theses
criterion criteria
phenomenon phenomena
datum data
index indices indexes
matrix matrices
vertex vertices
good better best
bad worse worst
big bigger biggest
hot hotter hottest
far farther further farthest furthest
little less_little
easy easily easier easiest
happy happily happier happiest
true truly
gas gases
bus buses
news news
series series
species species
status status
lens lenses
physics physics
mathematics maths math
virus viruses
process processes
address addresses
"""

_UNTOUCHED: Final = wordset(
    """
    this his its yes thus less unless always perhaps plus minus bus gas business class boss loss mass pass press stress access
    address process success dress glass grass cross express progress express wireless chess mess miss kiss princess fitness illness
    witness wedding evening morning during nothing something anything everything string king ring spring thing wing sing bring
    building feeling bed red need feed seed speed breed bleed hundred sacred indeed exceed succeed proceed ted fed led shed embed
    need under over other another mother father brother sister never ever river number member water paper power order letter matter
    computer summer winter center server user driver buyer seller lender employer teacher leader player singer dancer trainer writer
    reader worker manager october september november december forest interest rest test best west east request harvest honest
    protest invest suggest guest quest contest latest arrest nest chest only family reply supply apply july italy fly rely ally
    bully early daily weekly monthly yearly hourly jelly belly ugly holy windows news physics mathematics economics politics
    analytics kubernetes redis aws https dns sms ios atlas texas paris canvas jesus
    """
)


def _irregular(lines: str) -> dict[str, str]:
    return {form: words[0] for line in lines.strip().splitlines() for words in [line.split()] for form in words}


_IRREGULAR: Final = _irregular(_IRREGULAR_LINES)
_VOWELS: Final = frozenset("aeiouy")


def lemma(word: str) -> str:
    """What stands for the lower-case word, its inflections and its synonyms."""
    return _lemma(word) if len(word) <= _LONGEST else word


_LONGEST: Final = 32
"""Characters; longer ones are no words, and would fill the cache."""


@lru_cache(maxsize=32_768)
def _lemma(word: str) -> str:
    base = _IRREGULAR.get(word)
    if base is None:
        base = word if len(word) < 4 or word in _UNTOUCHED or not word.isascii() else _stripped(word)
    return SAME.get(base) or SAME.get(word) or SAME.get(base + "e") or base


def _stripped(word: str) -> str:
    if word.endswith("'s"):
        word = word[:-2]
    word = _singular(word)
    for ending in ("ing", "ied", "ed", "est", "er", "ly"):
        if word.endswith(ending) and word not in _UNTOUCHED:
            return _root(word, ending)
    return _spelt(word)


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes", "zes", "oes")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def _root(word: str, ending: str) -> str:
    """Without the ending, if a word is left; "er" is kept on words that do not compare (a teacher is not "teach")."""
    stem = word[: -len(ending)]
    if ending == "ied":
        return stem + "y"
    if len(stem) < 3 or not _VOWELS.intersection(stem):
        return word
    if ending in ("er", "est") and COMPARED.isdisjoint((stem, stem + "e", stem[:-1], stem[:-1] + "y")):
        return _spelt(word)
    if stem.endswith("i") and ending in ("er", "est", "ly"):
        return stem[:-1] + "y"
    if len(stem) > 3 and stem[-1] == stem[-2] and stem[-1] not in "lsz":
        return stem[:-1]
    return _spelt(stem)


def _spelt(word: str) -> str:
    """British and American spelling alike, and no final e, which inflections drop."""
    if word.endswith("ise"):
        word = word[:-3] + "ize"
    elif word.endswith("is") and len(word) > 5:
        word = word[:-2] + "iz"
    word = word.replace("colour", "color").replace("behaviour", "behavior").replace("isation", "ization")
    return word[:-1] if word.endswith("e") and len(word) > 3 else word


COMPARED: Final = wordset(
    """
    big small large cheap fast slow high low long short old young new strong weak great hard easy light heavy dark bright clean deep
    hot cold warm cool rich poor thick thin wide narrow near close safe smart quick early late simple few small tall fine nice cute
    kind loud quiet happy healthy busy pretty lovely wealthy lucky tasty scary funny crazy dirty ugly angry hungry noisy dry wet fat
    sad mad sharp smooth soft tough rough rare wise large strange pure dense tiny fresh sweet mild clear cruel brave calm dumb fair
    firm full grave green grand harsh
    """
)
"""Adjectives with -er and -est."""
