"""Word lists of English grammar that the rules share: what carries no content, what may come or go, what must not."""

from typing import Final

from inference_cache_sidecar.guard.lists import wordset

WH: Final = wordset("what which who whom whose when where why how howcan")
AUXILIARIES: Final = wordset(
    """
    is are was were am do does did has have had can could should would will shall may might must ain't isn't aren't be been being
    """
)
ARTICLES: Final = wordset("a an the this that these those there here such some any")
PREPOSITIONS: Final = wordset(
    """
    of in on at for to from by with about into onto through during between among within as than per via across toward towards using
    around near over under above below behind beyond along against before after since until till without inside outside off out up
    down upon besides versus vs except despite beneath beside while because if whether so then though although however once
    """
)
CONJUNCTIONS: Final = wordset("and or nor but & plus")
PRONOUNS: Final = wordset(
    """
    i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers herself it its
    itself they them their theirs themselves one oneself u ur im
    """
)
FUNCTION: Final = (
    WH | AUXILIARIES | ARTICLES | PREPOSITIONS | CONJUNCTIONS | PRONOUNS | wordset("s d ll re ve m t go get let lets too according")
)

FILLERS: Final = wordset(
    """
    much well sorry possible certain specific particular own able want would need like mean do go get have make thing kind various
    several lot way person good great some it happen find take many most all other else more quickly easily properly successfully
    effective effectively case fact point sense personally exact whole entire become interesting nice basic main general common
    recommend suggest ask wonder know tell give list name explain describe define
    """
)
"""May stand on one side alone in an open question."""

ADVERBS: Final = wordset(
    """
    please kindly just really truly actually literally basically simply exactly generally usually typically currently presently
    right now nowadays ever even also still quite very so etc ok okay hello hi hey thanks thank anyway somehow certainly definitely
    surely indeed probably possibly honestly seriously today's merely rather possible
    """
)
"""May stand on one side alone even in a yes-or-no question, where "good" or "American" would change it."""

MARKS: Final = wordset(
    """
    before after until till since only unless against off down without except despite instead last next previous former formerly
    previously past future less least fewer either simultaneously mutually beyond outside inside above below minimally maximally
    always sometimes often rarely hardly too minus
    """
)
"""Small words that change the answer: both sides must have them."""

NEGATORS: Final = {
    word: kind
    for kind, line in (
        ("not", "not no none nothing nobody nowhere neither nor cannot"),
        ("never", "never"),
        ("without", "without lacking"),
        ("except", "except excluding unless"),
        ("hardly", "hardly barely scarcely rarely seldom"),
    )
    for word in line.split()
}
"""To the kind of negation: "no" and "not" are alike, "never" is more."""

QUANTIFIERS: Final = {
    word: kind
    for kind, line in (
        ("all", "all every each everyone everybody everything always"),
        ("most", "most mostly"),
        ("some", "some any several sometimes someone something few"),
        ("many", "many much lots"),
    )
    for word in line.split()
}

GREETINGS: Final = wordset("hi hello hey please kindly ok okay so well and but quick question")
"""May open a question without being part of it."""

KNOWN_ABBREVIATIONS: Final = wordset("mr mrs ms dr prof st vs etc inc ltd eg ie")

HE: Final = wordset("he him his himself")
SHE: Final = wordset("she her hers herself")
FIRST: Final = wordset("i me my mine myself we our ours ourselves im")
SECOND: Final = wordset("you your yours yourself yourselves u ur")

OWN: Final = wordset("my mine our ours your yours ur")

PAST: Final = wordset("was were did")
PRESENT: Final = wordset("is are am do does")
FUTURE: Final = wordset("will shall ll gonna")

VAGUE: Final = wordset(
    """
    think say see show seem look try receive get obtain have provide give know help assist assistance want need expect believe keep
    happen go come let able something thing anything everything please tell
    """
)
"""Verbs and nouns that a request can be put with or without."""

TIMES: Final = wordset(
    """
    january february march april june july august september october november december jan feb mar apr jun jul aug sep sept oct nov
    dec monday tuesday wednesday thursday friday saturday sunday mon tue wed thu fri today tonight tomorrow yesterday weekend
    weekday weekly daily monthly yearly annual hourly morning afternoon evening night midnight noon spring summer autumn winter
    season christmas easter halloween thanksgiving diwali ramadan birthday century decade bc ad am pm bce hour minute week month
    year day quarter fortnight
    """
)
UNITS: Final = wordset(
    """
    mg g kg mcg ug gram kilogram milligram pound lb lbs ounce oz ton tonne stone mm cm m km meter metre inch foot ft yard mile mi
    nanometer nm micron ml l liter litre gallon quart pint cup tablespoon teaspoon tbsp tsp second sec s ms millisecond minute min
    hour hr h day week month year decade century byte bit kb mb gb tb pb kib mib gib tib bps kbps mbps gbps hz khz mhz ghz watt w kw
    mw kwh volt v amp mah ohm joule j kj calorie kcal cal newton pascal pa kpa bar psi degree celsius fahrenheit kelvin c f k
    percent dollar usd euro eur pound gbp rupee inr yen jpy yuan cny franc chf cent penny peso rs acre hectare lakh crore lumen mph
    kmh kph knot px pixel dpi token fps rpm db decibel carat bp bps
    """
)
COUNTRIES_AND_CITIES: Final = wordset(
    """
    india china japan germany france spain italy england scotland wales ireland russia brazil canada mexico australia argentina
    egypt turkey iran iraq israel pakistan bangladesh nepal sri korea vietnam thailand indonesia malaysia singapore philippines
    sweden norway denmark finland poland greece portugal switzerland austria belgium netherlands holland ukraine nigeria kenya ghana
    ethiopia morocco algeria chile peru colombia venezuela cuba hungary romania bulgaria serbia croatia syria lebanon jordan saudi
    qatar dubai kuwait afghanistan taiwan hong kong europe asia africa us uk london paris berlin madrid rome moscow tokyo beijing
    shanghai delhi mumbai bangalore bengaluru chennai kolkata hyderabad pune sydney melbourne toronto vancouver montreal chicago
    boston seattle texas california florida york washington angeles francisco vegas miami houston dallas denver atlanta philadelphia
    amsterdam vienna prague dublin lisbon istanbul cairo lagos nairobi johannesburg karachi lahore dhaka bangkok manila jakarta
    seoul english french german spanish italian russian chinese japanese korean hindi arabic portuguese dutch swedish polish turkish
    tamil urdu bengali american british indian canadian australian mexican european asian african greek latin hebrew mandarin
    cantonese java python javascript typescript rust golang kotlin swift ruby php perl scala haskell google facebook amazon apple
    microsoft netflix tesla uber twitter instagram youtube whatsapp linkedin gmail iphone android windows linux macos ubuntu debian
    docker kubernetes postgres postgresql mysql mongodb redis kafka aws azure gcp bitcoin ethereum paypal visa mastercard
    """
)
"""Names that people write without a capital."""

CASED: Final = wordset(
    """
    turkey china polish japan chile jordan georgia apple amazon oracle windows word excel chrome target gap shell bush march may
    august reading nice java swift rust go python mercury mars cancer aids it us who what's dart ruby edge safari office teams slack
    zoom sprint frank mark bill will rose grace hope hunter baker smith cook brown green white black king rich art pat jack bob drew
    chase wells visa subway gas mustang jaguar puma python perl shellfish earth sun lent catholic republican democrat job ares
    """
)
"""Words that are another word with a capital; "all lower case" says nothing of which is meant."""

ENGLISH: Final = FUNCTION | wordset("please tell explain give show write make need want know help use best good work not all can find")
FOREIGN: Final = (
    wordset(
        """
    el los las una unos cual cuál qué que como cómo cuándo dónde por para con del quien quién esta está puedo hacer mi su es son ser
    le les une des du est sont quel quelle quels quelles comment pourquoi où quand qui avec dans pour sur je tu nous vous ils elle
    faire mon ma der das ein eine einen einer wie wer wann warum wo ist sind und oder nicht mit von zu zum zur auf für ich du wir
    ihr sie kann mein den dem il lo gli uno che chi cosa quando dove perché sono è di della nel posso fare mio o os um uma onde
    porque quem são não em eu meu fazer het een wat hoe waarom waar wanneer niet van voor ik jij kan mijn czy jak jest nie się gdzie
    kiedy dlaczego co bir ne nasıl nedir ve için apa bagaimana yang dan untuk adalah di ke dari saya vad hur är och inte jag den det
    som hvad hvordan er og ikke jeg mitä miten on ja
    """
    )
    - FUNCTION
    - wordset(
        """
    die was in an no me son per he so o i a on er den come do ja as am ma mi ne le du la di il su co como ve ke e es
    """
    )
)
