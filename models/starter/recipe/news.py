"""How often good news are met with gladness and bad ones with sorrow.

    python -m models.starter.recipe.news [--adapter models/starter/adapters/small-talk] [--seed 1]

Eighty first lines, each reply the first one that came, as in `reading`. A reply is glad or sorry by its
words, both, or neither ("What happened?").
"""

import re
from collections import Counter

from models.starter.recipe.reading import asking, heard

GOOD = """\
I feel great today! I won the lottery! I passed my exam! I got promoted! I got a new job today! It's my birthday today!
My team won! I'm going on vacation tomorrow. My sister had a baby. I got an A on my test. We are getting married! I had
a wonderful day. I'm so excited! I am really happy. I finally finished my book. I got a puppy! My boss gave me a raise.
I met a nice girl today. I had so much fun yesterday. The weather is beautiful today. I love my new car. I'm having a
good day. My grandma is feeling better. I slept very well. My best friend is coming to visit. I bought a house! I won
the race. I'm in love. I graduated today! Everything is going well. I made a new friend. I am proud of my son. The party
was amazing. I found my keys! My birthday party was great. I feel much better now. I got tickets to the concert! I am
having a great week. Life is good. I had a lovely dinner with my wife."""
BAD = """\
I'm a little sad today. I had a terrible day. My best friend moved away. I failed my exam. I lost my job. My car broke
down. My cat is sick. I had a rough week. My dog died. I lost my keys. I feel awful today. My team lost. I broke my leg.
My grandma is in the hospital. We broke up. I have a headache. I feel lonely tonight. I miss my mom. I hate my job.
Somebody stole my bike. I got fired today. The weather is awful today. My boss yelled at me. I can't pay my rent. I'm
having a bad day. My house burned down. I feel sick. Nobody likes me. I failed my test. I am worried about my son. My
phone is broken. I got hurt at work. I'm really upset. My flight was cancelled. I feel terrible. Everything is going
wrong. I am depressed. My friend is angry with me. I missed the bus. I'm afraid of tomorrow."""
GLAD = re.compile(
    r"\b(?:happy|glad|great|wonderful|awesome|amazing|congratulations|congrats|cool|nice|good|lovely|yay|fun|exciting"
    r"|excited|love|enjoy)\b",
    re.IGNORECASE,
)
SORRY = re.compile(
    r"\b(?:sorry|oh no|bummer|drag|rest|hugs?|too bad|terrible|sucks|blue|better soon|sad|upset|naps|rough|tough)\b",
    re.IGNORECASE,
)


def main() -> None:
    given = asking(__doc__).parse_args()
    good, bad = (re.findall(r"\S[^.!]*[.!]", text.replace("\n", " ")) for text in (GOOD, BAD))
    said = heard(given, [[line] for line in good + bad])
    replies = [reply for ((_, reply),) in said]
    print("| news | glad | sorry | both | neither | of |\n|---|---|---|---|---|---|")
    for name, answers in (("good", replies[: len(good)]), ("bad", replies[len(good) :])):
        kinds = Counter((bool(GLAD.search(reply)), bool(SORRY.search(reply))) for reply in answers)
        counts = (kinds[True, False], kinds[False, True], kinds[True, True], kinds[False, False], len(answers))
        print(f"| {name} | {' | '.join(map(str, counts))} |")
    print("\n| Person1 | Person2 |\n|---|---|")
    for ((line, reply),) in said:
        print(f"| {line} | {reply} |")


if __name__ == "__main__":
    main()
